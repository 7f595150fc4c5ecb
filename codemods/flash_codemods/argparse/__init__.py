"""Scripts with an `argparse.ArgumentParser`."""

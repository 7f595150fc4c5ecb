from flash_integrate.cli import main

if __name__ == "__main__":
    main()

// Threads that wait for work: started once per process, as many as the machine has cores.
#pragma once

#include <functional>
#include <memory>

namespace flash {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;

  // Calls task(index, thread) for each index in [0, count), each once, on any thread in [0, threads()); the caller works
  // too. Returns when all are done. One run at a time: a second caller waits. What a task throws is thrown here. In a
  // forked child, which has none of the threads, the caller does all the work.
  void run(int count, const std::function<void(int index, int thread)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flash

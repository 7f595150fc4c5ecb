// Threads that wait for work: started once per process, as many as the machine has cores.
#pragma once

#include <functional>

namespace flash {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;

  // Calls task(index, thread) for each index in [0, count), each once, on any thread in [0, threads()); the caller works
  // too. Returns when all are done. One run at a time: a second caller waits.
  void run(int count, const std::function<void(int index, int thread)>& task);
};

}  // namespace flash

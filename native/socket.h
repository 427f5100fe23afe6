// SPDX-License-Identifier: Apache-2.0
// One netlink socket and its one thread. The thread is born for the socket, enters the namespace, opens the
// descriptor, does all sending and receiving, and closes the descriptor again: nobody else ever touches it, so its
// number cannot be reused under us, and a socket in doubt can be reopened in the same namespace.
// Knows no message family: only nlmsghdr, NLMSG_ERROR and NLMSG_DONE. Every callback runs on the thread.
#pragma once
#include <linux/netlink.h>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "os.h"

namespace weft {

struct Options {
  int protocol = 0;
  std::string netns;             // empty: the process's own
  int rcvbuf = 0;                // bytes, 0: the kernel's default
  int sndbuf = 0;
  int deadline_ms = 5000;        // without any reply
  size_t backlog = 32 << 20;     // events kept for a blocked loop; more stay in the kernel's buffer, then are lost
  std::vector<uint32_t> groups;  // given: an event socket, which takes no jobs
};

struct Result {
  Failure failure;            // of the job itself; what the kernel says of a message is in replies
  std::vector<uint8_t> replies;  // whole messages, sequence = index of the request; acks of success left out
  uint32_t covered = 0;       // chunked: so many requests are known to have been handled
  bool interrupted = false;   // dump: the table changed meanwhile
};

struct Job {
  enum class Kind { kChunked, kAtomic, kDump };
  Kind kind;
  uint8_t* data;  // sequence numbers and ack flags are written here; must live until done
  size_t length;
  std::function<void(Result)> done;
};

struct Events {
  std::vector<uint8_t> data;
  bool lost = false;
};

class Socket {
 public:
  struct Callbacks {
    std::function<void(Failure, uint32_t port)> opened;
    std::function<void()> readable;  // Take() has something; not repeated until it was called
    std::function<void()> ended;     // the last thing the thread does; then Join()
  };
  Socket(Options options, Callbacks callbacks);
  /** Returns an errno; if not 0, no callback will ever run. */
  int Start();
  void Submit(Job job);
  Events Take();
  void Stop();
  void Join() { thread_.Join(); }

 private:
  void Run();
  Failure Connect();
  void Serve();
  void Watch();
  void Execute(Job& job, Result* result);
  Failure Frame(Job& job, std::vector<uint32_t>* starts);
  Failure RunChunked(Job& job, const std::vector<uint32_t>& starts, Result* result);
  Failure RunAtomic(Job& job, const std::vector<uint32_t>& starts, Result* result);
  Failure RunDump(Job& job, Result* result);
  Failure Send(const uint8_t* data, size_t length);
  Failure Wait();
  int Receive(size_t* length);
  template <typename Visit>
  void EachReply(size_t length, uint32_t count, Visit visit);
  void DrainWake();

  const Options options_;
  Callbacks callbacks_;
  Thread thread_;
  Fd fd_;    // the thread's alone
  Fd wake_;  // eventfd: a job was queued, events were taken, or stop
  std::vector<uint8_t> buffer_;
  uint32_t port_ = 0;
  uint32_t next_sequence_ = 1;
  uint32_t first_sequence_ = 1;  // of the running job
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards what follows
  std::deque<Job> jobs_;
  bool ended_ = false;
  Events events_;
  bool announced_ = false;
};

}  // namespace weft

// SPDX-License-Identifier: Apache-2.0
// The three things every file here needs from the operating system: a descriptor that closes itself, a failed call
// (errno and which call), and a thread. std::thread is not used: it throws when none can be had, and we build
// without exceptions.
#pragma once
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <functional>
#include <utility>

namespace weft {

/** code 0 is success. */
struct Failure {
  int code = 0;
  const char* call = "";
  explicit operator bool() const { return code != 0; }
};

inline Failure Failed(const char* call) { return {errno, call}; }

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.Release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = other.Release();
    }
    return *this;
  }
  ~Fd() { Close(); }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

/**
 * Start once, Join once. All signals are blocked inside, so that none of our calls is interrupted by Node's. Its name
 * (`top -H`, /proc/PID/task/TID/comm) tells it from Node's own threads, which come and go.
 */
class Thread {
 public:
  /** Returns an errno, 0 when the thread runs. */
  int Start(std::function<void()> body) {
    body_ = std::move(body);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    int rc = pthread_create(&thread_, &attributes, &Thread::Main, this);
    pthread_attr_destroy(&attributes);
    started_ = rc == 0;
    return rc;
  }
  void Join() {
    if (started_) pthread_join(thread_, nullptr);
    started_ = false;
  }

 private:
  static void* Main(void* self) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    prctl(PR_SET_NAME, "weft-native");
    static_cast<Thread*>(self)->body_();
    return nullptr;
  }
  std::function<void()> body_;
  pthread_t thread_{};
  bool started_ = false;
};

}  // namespace weft

// SPDX-License-Identifier: Apache-2.0
#include "socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <cstring>
#include "netns.h"

namespace weft {
namespace {
// The kernel sizes dump datagrams by what the reader offered so far, up to 32 KB.
constexpr size_t kReceive = 64 * 1024;
// Above some 300 vxlan fdb entries in one send kernel 6.18 becomes eight times slower, and 128 errors are what the
// default receive buffer is sure to hold.
constexpr size_t kChunkMessages = 128;
constexpr size_t kChunkBytes = 16 * 1024;

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1000000;
}

nlmsghdr* Header(uint8_t* at) { return reinterpret_cast<nlmsghdr*>(at); }

void SetBuffer(int fd, int force, int plain, int size) {
  if (size > 0 && setsockopt(fd, SOL_SOCKET, force, &size, sizeof size) != 0) {
    setsockopt(fd, SOL_SOCKET, plain, &size, sizeof size);
  }
}
}  // namespace

Socket::Socket(Options options, Callbacks callbacks)
    : options_(std::move(options)), callbacks_(std::move(callbacks)), buffer_(kReceive) {}

int Socket::Start() {
  wake_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.ok()) return errno;
  return thread_.Start([this] { Run(); });
}

void Socket::Submit(Job job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!ended_) {
      jobs_.push_back(std::move(job));
      eventfd_write(wake_.get(), 1);
      return;
    }
  }
  Result result;
  result.failure = {ECANCELED, "submit"};
  job.done(std::move(result));
}

Events Socket::Take() {
  std::lock_guard<std::mutex> lock(mutex_);
  announced_ = false;
  eventfd_write(wake_.get(), 1);
  return std::exchange(events_, Events{});
}

void Socket::Stop() {
  stop_ = true;
  if (wake_.ok()) eventfd_write(wake_.get(), 1);
}

void Socket::Run() {
  Failure failure = EnterNetns(options_.netns);
  if (!failure) failure = Connect();
  callbacks_.opened(failure, port_);
  if (!failure) {
    if (options_.groups.empty()) {
      Serve();
    } else {
      Watch();
    }
  }
  fd_.Close();
  std::deque<Job> rest;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    rest.swap(jobs_);
  }
  for (Job& job : rest) {
    Result result;
    result.failure = {ECANCELED, "close"};
    job.done(std::move(result));
  }
  callbacks_.ended();
}

Failure Socket::Connect() {
  fd_ = Fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, options_.protocol));
  if (!fd_.ok()) return Failed("socket");
  SetBuffer(fd_.get(), SO_RCVBUFFORCE, SO_RCVBUF, options_.rcvbuf);
  SetBuffer(fd_.get(), SO_SNDBUFFORCE, SO_SNDBUF, options_.sndbuf);
  const int on = 1;
  for (int option : {NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK}) {
    if (setsockopt(fd_.get(), SOL_NETLINK, option, &on, sizeof on) != 0) return Failed("setsockopt");
  }
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  socklen_t size = sizeof address;
  if (bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) return Failed("bind");
  if (getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return Failed("getsockname");
  port_ = address.nl_pid;
  for (uint32_t group : options_.groups) {
    if (setsockopt(fd_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
      return Failed("setsockopt");
    }
  }
  return {};
}

void Socket::DrainWake() {
  eventfd_t ignored;
  eventfd_read(wake_.get(), &ignored);
}

void Socket::Serve() {
  while (!stop_) {
    Job job{};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!jobs_.empty()) {
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
    }
    if (!job.done) {
      pollfd idle{wake_.get(), POLLIN, 0};
      poll(&idle, 1, -1);
      DrainWake();
      continue;
    }
    Result result;
    // A failed reopen leaves no descriptor: every job tries again, and says why it cannot run.
    if (!fd_.ok()) result.failure = Connect();
    if (!result.failure) Execute(job, &result);
    // Replies may still come, or a dump may be half-way: only a new socket is surely clean.
    if (result.failure) fd_.Close();
    job.done(std::move(result));
  }
}

void Socket::Execute(Job& job, Result* result) {
  std::vector<uint32_t> starts;
  result->failure = Frame(job, &starts);
  if (result->failure) return;
  switch (job.kind) {
    case Job::Kind::kChunked: result->failure = RunChunked(job, starts, result); break;
    case Job::Kind::kAtomic: result->failure = RunAtomic(job, starts, result); break;
    case Job::Kind::kDump: result->failure = RunDump(job, result); break;
  }
}

// A message whose length runs past the buffer is dropped by the kernel without a word, so look before sending.
// Sequence numbers count on over the life of the socket; 0 is what events carry.
Failure Socket::Frame(Job& job, std::vector<uint32_t>* starts) {
  for (size_t at = 0; at < job.length;) {
    if (job.length - at < sizeof(nlmsghdr)) return {EBADMSG, "submit"};
    const size_t length = Header(job.data + at)->nlmsg_len;
    if (length < sizeof(nlmsghdr) || length > job.length - at) return {EBADMSG, "submit"};
    starts->push_back(static_cast<uint32_t>(at));
    at += NLMSG_ALIGN(length);
  }
  if (starts->empty() || (job.kind == Job::Kind::kDump && starts->size() != 1)) return {EBADMSG, "submit"};
  if (next_sequence_ > UINT32_MAX - starts->size()) next_sequence_ = 1;
  first_sequence_ = next_sequence_;
  for (uint32_t start : *starts) Header(job.data + start)->nlmsg_seq = next_sequence_++;
  return {};
}

Failure Socket::Send(const uint8_t* data, size_t length) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  ssize_t sent = sendto(fd_.get(), data, length, 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
  if (sent < 0) return Failed("sendmsg");
  return {};
}

Failure Socket::Wait() {
  const int64_t until = NowMs() + options_.deadline_ms;
  for (;;) {
    if (stop_) return {ECANCELED, "close"};
    const int64_t left = until - NowMs();
    if (left <= 0) return {ETIMEDOUT, "recvmsg"};
    pollfd ready[2] = {{fd_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(ready, 2, static_cast<int>(left)) < 0) return Failed("poll");
    if (ready[1].revents != 0) DrainWake();
    if (ready[0].revents != 0) return {};
  }
}

// One datagram into buffer_. Returns an errno; EAGAIN when there is none. Length 0: not from the kernel, ignore.
int Socket::Receive(size_t* length) {
  sockaddr_nl from{};
  iovec part{buffer_.data(), buffer_.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  *length = 0;
  ssize_t count = recvmsg(fd_.get(), &message, MSG_DONTWAIT);
  if (count < 0) return errno;
  if ((message.msg_flags & MSG_TRUNC) != 0) return EMSGSIZE;
  if (from.nl_pid == 0) *length = static_cast<size_t>(count);
  return 0;
}

// visit(bytes, length, index of the request); what does not answer this job is skipped. The sequence number is
// replaced by the index, so that the numbers stay ours.
template <typename Visit>
void Socket::EachReply(size_t length, uint32_t count, Visit visit) {
  for (size_t at = 0; length - at >= sizeof(nlmsghdr) && at < length;) {
    uint8_t* bytes = buffer_.data() + at;
    const size_t size = Header(bytes)->nlmsg_len;
    if (size < sizeof(nlmsghdr) || size > length - at) return;
    const uint32_t index = Header(bytes)->nlmsg_seq - first_sequence_;
    if (index < count) {
      Header(bytes)->nlmsg_seq = index;
      visit(bytes, size, index);
    }
    at += NLMSG_ALIGN(size);
    if (at > length) return;
  }
}

namespace {
bool IsError(const uint8_t* bytes, size_t size, int* code) {
  if (reinterpret_cast<const nlmsghdr*>(bytes)->nlmsg_type != NLMSG_ERROR) return false;
  if (size < NLMSG_HDRLEN + sizeof(int)) return false;
  memcpy(code, bytes + NLMSG_HDRLEN, sizeof *code);
  return true;
}

void Append(std::vector<uint8_t>* to, const uint8_t* bytes, size_t size) {
  to->insert(to->end(), bytes, bytes + size);
  to->resize(NLMSG_ALIGN(to->size()));
}
}  // namespace

Failure Socket::RunChunked(Job& job, const std::vector<uint32_t>& starts, Result* result) {
  const uint32_t total = static_cast<uint32_t>(starts.size());
  auto end_of = [&](uint32_t index) { return index + 1 < total ? starts[index + 1] : job.length; };
  for (uint32_t first = 0; first < total;) {
    uint32_t next = first + 1;
    while (next < total && next - first < kChunkMessages && end_of(next) - starts[first] <= kChunkBytes) next++;
    const uint32_t last = next - 1;
    Header(job.data + starts[last])->nlmsg_flags |= NLM_F_ACK;
    if (stop_) return {ECANCELED, "close"};
    if (Failure failure = Send(job.data + starts[first], end_of(last) - starts[first])) return failure;
    for (bool closed = false; !closed;) {
      if (Failure failure = Wait()) return failure;
      size_t length;
      int code = Receive(&length);
      if (code == EAGAIN) continue;
      if (code != 0) return {code, "recvmsg"};
      EachReply(length, total, [&](const uint8_t* bytes, size_t size, uint32_t index) {
        int status = 0;
        const bool answer = IsError(bytes, size, &status);
        if (!answer || status != 0) Append(&result->replies, bytes, size);
        if (answer && index == last) closed = true;
      });
    }
    result->covered = first = next;
  }
  return {};
}

// The kernel handles all of one send before sendmsg returns, so what is not in the buffer now will never come.
Failure Socket::RunAtomic(Job& job, const std::vector<uint32_t>& starts, Result* result) {
  if (Failure failure = Send(job.data, job.length)) return failure;
  for (;;) {
    size_t length;
    int code = Receive(&length);
    if (code == EAGAIN) break;
    if (code != 0) return {code, "recvmsg"};
    EachReply(length, static_cast<uint32_t>(starts.size()), [&](const uint8_t* bytes, size_t size, uint32_t) {
      int status = 0;
      if (!IsError(bytes, size, &status) || status != 0) Append(&result->replies, bytes, size);
    });
  }
  result->covered = static_cast<uint32_t>(starts.size());
  return {};
}

Failure Socket::RunDump(Job& job, Result* result) {
  if (Failure failure = Send(job.data, job.length)) return failure;
  for (bool closed = false; !closed;) {
    if (Failure failure = Wait()) return failure;
    size_t length;
    int code = Receive(&length);
    if (code == EAGAIN) continue;
    if (code != 0) return {code, "recvmsg"};
    EachReply(length, 1, [&](const uint8_t* bytes, size_t size, uint32_t) {
      const nlmsghdr* header = reinterpret_cast<const nlmsghdr*>(bytes);
      if ((header->nlmsg_flags & NLM_F_DUMP_INTR) != 0) result->interrupted = true;
      if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) closed = true;
      Append(&result->replies, bytes, size);
    });
  }
  result->covered = 1;
  return {};
}

// Reads ahead of the loop, and hands over everything gathered in one go. Above the backlog it stops reading: then the
// kernel's buffer fills, overruns, and says so.
void Socket::Watch() {
  while (!stop_) {
    size_t waiting;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      waiting = events_.data.size();
    }
    pollfd ready[2] = {{wake_.get(), POLLIN, 0}, {fd_.get(), POLLIN, 0}};
    if (poll(ready, waiting < options_.backlog ? 2 : 1, -1) < 0) continue;
    if (ready[0].revents != 0) DrainWake();
    if (ready[1].revents == 0) continue;
    size_t length;
    const int code = Receive(&length);
    if (code == EAGAIN || (code == 0 && length == 0)) continue;
    bool announce;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (code == 0) {
        Append(&events_.data, buffer_.data(), length);
      } else {
        events_.lost = true;  // ENOBUFS, or a datagram larger than the buffer
      }
      announce = !std::exchange(announced_, true);
    }
    if (announce) callbacks_.readable();
  }
}

}  // namespace weft

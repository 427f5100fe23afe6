// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstring>

namespace weft {

Failure OpenNetns(const std::string& path, Fd* out) {
  Fd fd(open(path.empty() ? "/proc/self/ns/net" : path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.ok()) return Failed("open");
  int kind = ioctl(fd.get(), NS_GET_NSTYPE);
  if (kind != CLONE_NEWNET) return {EINVAL, "open"};
  *out = std::move(fd);
  return {};
}

Failure EnterNetns(const std::string& path) {
  if (path.empty()) return {};
  Fd fd;
  if (Failure failure = OpenNetns(path, &fd)) return failure;
  if (setns(fd.get(), CLONE_NEWNET) != 0) return Failed("setns");
  return {};
}

namespace {
// As `ip netns` does: the directory is a shared mount of its own, so that a namespace deleted here goes away in every
// mount namespace. Locked as there, or two processes could stack two mounts and hide each other's files.
Failure PrepareDirectory(const std::string& directory) {
  for (size_t at = 1; at != std::string::npos;) {
    at = directory.find('/', at);
    std::string part = directory.substr(0, at);
    if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) return Failed("mkdir");
    if (at != std::string::npos) at++;
  }
  Fd lock(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!lock.ok()) return Failed("open");
  if (flock(lock.get(), LOCK_EX) != 0) return Failed("flock");
  const char* name = directory.c_str();
  if (mount("", name, "none", MS_SHARED | MS_REC, nullptr) == 0) return {};
  if (errno != EINVAL) return Failed("mount");
  if (mount(name, name, "none", MS_BIND | MS_REC, nullptr) != 0) return Failed("mount");
  if (mount("", name, "none", MS_SHARED | MS_REC, nullptr) != 0) return Failed("mount");
  return {};
}
}  // namespace

Failure CreateNetns(const std::string& path) {
  size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || slash == 0) return {EINVAL, "netnsCreate"};
  if (Failure failure = PrepareDirectory(path.substr(0, slash))) return failure;
  Fd file(open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0));
  if (!file.ok()) return Failed("open");
  Failure failure;
  if (unshare(CLONE_NEWNET) != 0) {
    failure = Failed("unshare");
  } else if (mount("/proc/thread-self/ns/net", path.c_str(), "none", MS_BIND, nullptr) != 0) {
    failure = Failed("mount");
  }
  if (failure) unlink(path.c_str());
  return failure;
}

Failure DeleteNetns(const std::string& path) {
  Fd fd;
  // Anything else that is mounted or stored under this name is none of our business. An empty file is what remains
  // when a creation was cut short.
  if (Failure failure = OpenNetns(path, &fd)) {
    struct stat info;
    if (failure.code != EINVAL || lstat(path.c_str(), &info) != 0) return failure;
    if (!S_ISREG(info.st_mode) || info.st_size != 0) return failure;
  } else if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return Failed("umount2");
  }
  if (unlink(path.c_str()) != 0) return Failed("unlink");
  return {};
}

Failure IdentifyNetns(const std::string& path, std::string* out) {
  Fd fd;
  if (Failure failure = OpenNetns(path, &fd)) return failure;
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return Failed("fstat");
  *out = std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
  return {};
}

Failure ReadFile(const std::string& file, std::string* out) {
  Fd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.ok()) return Failed("open");
  char part[4096];
  for (;;) {
    ssize_t count = read(fd.get(), part, sizeof part);
    if (count < 0) return Failed("read");
    if (count == 0) return {};
    out->append(part, static_cast<size_t>(count));
  }
}

Failure WriteFile(const std::string& file, const std::string& text) {
  Fd fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.ok()) return Failed("open");
  if (write(fd.get(), text.data(), text.size()) < 0) return Failed("write");
  return {};
}

Failure BindSocket(const SocketRequest& want, Fd* out) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v6.sin6_family = AF_INET6;
  v4.sin_port = v6.sin6_port = htons(want.port);
  const size_t percent = want.address.find('%');
  if (percent != std::string::npos) {
    v6.sin6_scope_id = if_nametoindex(want.address.c_str() + percent + 1);
    if (v6.sin6_scope_id == 0) return Failed("if_nametoindex");
  }
  void* target = want.ipv6 ? static_cast<void*>(&v6.sin6_addr) : static_cast<void*>(&v4.sin_addr);
  const int family = want.ipv6 ? AF_INET6 : AF_INET;
  if (inet_pton(family, want.address.substr(0, percent).c_str(), target) != 1) return {EINVAL, "inet_pton"};
  const int type = (want.tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
  Fd fd(socket(family, type, want.ping ? static_cast<int>(IPPROTO_ICMPV6) : 0));
  if (!fd.ok()) return Failed("socket");
  auto set = [&](bool wanted, int level, int option) {
    const int on = 1;
    return !wanted || setsockopt(fd.get(), level, option, &on, sizeof on) == 0;
  };
  const int level = want.ipv6 ? static_cast<int>(IPPROTO_IPV6) : static_cast<int>(IPPROTO_IP);
  if (!set(want.ipv6, IPPROTO_IPV6, IPV6_V6ONLY) || !set(want.reuse_addr, SOL_SOCKET, SO_REUSEADDR) ||
      !set(want.transparent, level, want.ipv6 ? IPV6_TRANSPARENT : IP_TRANSPARENT) ||
      !set(want.freebind, level, want.ipv6 ? IPV6_FREEBIND : IP_FREEBIND)) {
    return Failed("setsockopt");
  }
  const sockaddr* address = want.ipv6 ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
  const socklen_t length = want.ipv6 ? sizeof v6 : sizeof v4;
  if (want.ping) {
    if (connect(fd.get(), address, length) != 0) return Failed("connect");
  } else if (!want.unbound && bind(fd.get(), address, length) != 0) {
    return Failed("bind");
  }
  if (want.tcp && !want.held && listen(fd.get(), 512) != 0) return Failed("listen");
  *out = std::move(fd);
  return {};
}

Failure OpenPacket(int ifindex, uint16_t protocol, const std::vector<uint8_t>& filter, Fd* out) {
  if (ifindex <= 0 || filter.size() % sizeof(sock_filter) != 0 || filter.size() > sizeof(sock_filter) * BPF_MAXINSNS) {
    return {EINVAL, "openPacket"};
  }
  // No protocol yet: nothing comes in before the filter is there and one link is chosen.
  Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return Failed("socket");
  if (!filter.empty()) {
    std::vector<sock_filter> code(filter.size() / sizeof(sock_filter));
    memcpy(code.data(), filter.data(), filter.size());
    sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    if (setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) return Failed("setsockopt");
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(protocol);
  address.sll_ifindex = ifindex;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return Failed("bind");
  *out = std::move(fd);
  return {};
}

}  // namespace weft

// SPDX-License-Identifier: Apache-2.0
// Network namespaces. Everything that says "thread" changes the namespace of the calling thread for good: call it on
// a thread that is then discarded. An empty path means the process's own namespace.
#pragma once
#include <stdint.h>
#include <string>
#include <vector>
#include "os.h"

namespace weft {

/** Open a namespace file; EINVAL if the file is not a network namespace. */
Failure OpenNetns(const std::string& path, Fd* out);
/** Move the calling thread. */
Failure EnterNetns(const std::string& path);
/** `ip netns add`: the calling thread makes a namespace and binds it to a new file. */
Failure CreateNetns(const std::string& path);
/** `ip netns delete`. */
Failure DeleteNetns(const std::string& path);
/** "device:inode", equal for two paths exactly if they are the same namespace. */
Failure IdentifyNetns(const std::string& path, std::string* out);
Failure ReadFile(const std::string& file, std::string* out);
Failure WriteFile(const std::string& file, const std::string& text);

struct SocketRequest {
  bool ipv6 = false;
  bool tcp = false;
  bool transparent = false;
  bool reuse_addr = false;
  bool freebind = false;
  bool held = false;
  bool ping = false;
  bool unbound = false;
  std::string address;
  uint16_t port = 0;
};
/**
 * A non-blocking socket in the calling thread's namespace: bound, and listening if it is TCP; one for ICMPv6 echo is
 * connected to the address instead, an unbound one has no port yet. "%device" may follow an IPv6 address: a device of that namespace.
 */
Failure BindSocket(const SocketRequest& request, Fd* out);

/**
 * A non-blocking packet socket on one link: write(2) sends a frame, read(2) takes one that came with this EtherType
 * (host order) and passed the filter, an array of sock_filter (empty: every one). EINVAL for a filter of part of one.
 */
Failure OpenPacket(int ifindex, uint16_t protocol, const std::vector<uint8_t>& filter, Fd* out);

}  // namespace weft

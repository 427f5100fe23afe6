# SPDX-License-Identifier: Apache-2.0
# Node-API only: one build serves every Node from 22 on.
{
  "targets": [
    {
      "target_name": "weft_netlink",
      "sources": ["addon.cc", "netns.cc", "socket.cc"],
      "defines": ["NAPI_VERSION=9"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": ["-std=c++17", "-fno-exceptions", "-Wall", "-Wextra", "-O2", "-fvisibility=hidden"]
    }
  ]
}

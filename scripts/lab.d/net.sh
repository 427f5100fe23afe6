# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: the underlay. NAME-u is switch and router, NAME-x the outside client.
# shellcheck shell=bash disable=SC2154

in_ns() { local ns=$1; shift; ip netns exec "$name-$ns" "$@"; }
sysctl_in() { local ns=$1; shift; in_ns "$ns" sysctl -qw "$@"; }
mtu_of() { # mtu_of h2: its own of the list, or the only one
  local list i=${1#h}
  IFS=, read -r -a list <<< "$mtus"
  echo "${list[$((i - 1))]:-${list[-1]}}"
}
widest() { tr , '\n' <<< "$mtus" | sort -n | tail -n 1; }

add_ns() {
  ip netns add "$name-$1"
  ip -n "$name-$1" link set lo up
  sysctl_in "$1" net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

underlay() {
  local i n=$1 wide
  wide=$(widest)
  add_ns u
  ip -n "$name-u" link add ubr address 02:09:00:00:00:fe type bridge
  ip -n "$name-u" link set ubr mtu "$wide" up
  ip -n "$name-u" addr add 10.9.0.254/24 dev ubr
  ip -n "$name-u" addr add fd09::fe/64 dev ubr nodad
  sysctl_in u net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=1
  add_ns x
  ip -n "$name-u" link add px type veth peer name eth0 netns "$name-x"
  ip -n "$name-u" link set px up
  ip -n "$name-u" addr add 192.0.2.1/24 dev px
  ip -n "$name-u" addr add 2001:db8::1/64 dev px nodad
  ip -n "$name-x" link set eth0 up
  ip -n "$name-x" addr add 192.0.2.10/24 dev eth0
  ip -n "$name-x" addr add 2001:db8::10/64 dev eth0 nodad
  ip -n "$name-x" route add default via 192.0.2.1
  ip -n "$name-x" route add default via 2001:db8::1
  in_ns u nft -f - <<'N'
table bridge spoof {
  counter dropped {
  }
  chain in {
    type filter hook prerouting priority -250
  }
}
N
  for ((i = 1; i <= n; i++)); do host_link "h$i"; done
}

# The host's namespace and its cable; a port may only send with its host's own addresses, as in a cloud.
host_link() {
  local host=$1 i=${1#h} mtu
  mtu=$(mtu_of "$host")
  add_ns "$host"
  ip -n "$name-u" link add "p$host" type veth peer name eth0 netns "$name-$host"
  ip -n "$name-u" link set "p$host" mtu "$(widest)" master ubr up
  ip -n "$name-$host" link set eth0 address "02:09:00:00:00:0$i" mtu "$mtu" up
  ip -n "$name-$host" addr add "10.9.0.$i/24" dev eth0
  ip -n "$name-$host" addr add "fd09::$i/64" dev eth0 nodad
  ip -n "$name-$host" route add default via 10.9.0.254
  ip -n "$name-$host" route add default via fd09::fe
  sysctl_in "$host" net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1
  in_ns u nft -f - <<N
    add rule bridge spoof in iifname p$host ip saddr != 10.9.0.$i counter name dropped drop
    add rule bridge spoof in iifname p$host ip6 saddr != { fd09::$i, fe80::/10 } counter name dropped drop
N
}

net_down() {
  local ns pid
  for ns in $(ip netns list 2> /dev/null | awk '{ print $1 }' | grep -E "^$name-(u|x|h[1-9])$"); do
    for pid in $(ip netns pids "$ns" 2> /dev/null); do kill -9 "$pid" 2> /dev/null || true; done
    ip netns del "$ns" 2> /dev/null || true
  done
}

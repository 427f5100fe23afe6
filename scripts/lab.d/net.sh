# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: the underlay. NAME-u is switch and router, NAME-x the outside client, NAME-h1… the hosts,
# NAME-s1… the members of the store.
# shellcheck shell=bash disable=SC2154

netns_of() { # netns_of WHO
  case $1 in
    client) echo "$name-x" ;;
    router) echo "$name-u" ;;
    store) echo "$name-s1" ;;
    *) echo "$name-$1" ;;
  esac
}
mtu_of() { # mtu_of h2: its own of the list, or the last one
  local list i=${1#h}
  IFS=, read -r -a list <<< "$mtus"
  echo "${list[$((i - 1))]:-${list[-1]}}"
}
widest() { tr , '\n' <<< "$mtus" | sort -n | tail -n 1; }

add_ns() { # add_ns NAMESPACE SYSCTL…
  local ns=$1
  shift
  ip netns add "$name-$ns"
  ip -n "$name-$ns" link set lo up
  ip netns exec "$name-$ns" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 "$@"
}

underlay() { # underlay HOST…
  local host wide
  wide=$(widest)
  add_ns u net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  add_ns x
  ip -n "$name-u" -batch - <<I
link add ubr address 02:09:00:00:00:fe type bridge
link set ubr mtu $wide up
addr add 10.9.0.254/24 dev ubr
addr add fd09::fe/64 dev ubr nodad
link add px type veth peer name eth0 netns $name-x
link set px up
addr add 192.0.2.1/24 dev px
addr add 2001:db8::1/64 dev px nodad
I
  ip -n "$name-x" -batch - <<I
link set eth0 up
addr add 192.0.2.10/24 dev eth0
addr add 192.0.2.11/24 dev eth0
addr add 2001:db8::10/64 dev eth0 nodad
route add default via 192.0.2.1
route add default via 2001:db8::1
I
  ip netns exec "$name-u" nft -f - <<'N'
table bridge spoof {
  counter dropped {
  }
  chain in {
    type filter hook prerouting priority -250
  }
}
N
  for host in "$@"; do host_link "$host"; done
}

host_link() { link_to "$1" "${1#h}" "${1#h}" 0 "$(mtu_of "$1")"; }
# Everything that a cable needs: its namespace, and a port that passes only its own addresses, as in a cloud.
link_to() { # link_to WHO NUMBER MAC-BYTE MAC-KIND MTU
  local who=$1 i=$2 mac mtu=$5
  mac=$(printf '02:09:00:00:%02x:%02x' "$4" "$3")
  add_ns "$who"
  ip -n "$name-u" -batch - <<I
link add p$who type veth peer name eth0 netns $name-$who
link set p$who mtu $(widest) master ubr up
I
  ip -n "$name-$who" -batch - <<I
link set eth0 address $mac mtu $mtu up
addr add 10.9.0.$i/24 dev eth0
addr add fd09::$i/64 dev eth0 nodad
route add default via 10.9.0.254
route add default via fd09::fe
I
  [ ! -f "$state/$who/filtered" ] || return 0
  mkdir -p "$state/$who"
  : > "$state/$who/filtered"
  ip netns exec "$name-u" nft -f - <<N
add rule bridge spoof in iifname p$who ether saddr != $mac counter name dropped drop
add rule bridge spoof in iifname p$who ip saddr != 10.9.0.$i counter name dropped drop
add rule bridge spoof in iifname p$who ip6 saddr != { ::, fd09::$i, fe80::/10 } counter name dropped drop
N
}

# Ends what is in a namespace and removes it. Killing a host's first process ends its containers, in namespaces that
# have no name here, before it is gone itself.
ns_down() { # ns_down NAMESPACE…
  local ns pid busy=1 killed=()
  thaw "$@"
  while [ "$busy" ]; do
    busy=''
    for ns in "$@"; do
      for pid in $(ip netns pids "$ns" 2> /dev/null); do
        busy=1
        killed+=("$pid")
        kill -9 "$pid" 2> /dev/null || true
      done
    done
    [ -z "$busy" ] || sleep 0.05
  done
  # a dying first process leaves its network namespace before it has buried all of the others
  for pid in "${killed[@]}"; do while is_dying "$pid"; do sleep 0.02; done; done
  for ns in "$@"; do ip netns del "$ns" 2> /dev/null || true; done
}
# paused containers do not die; those of other hosts stay paused
thaw() { # thaw NAMESPACE…
  local ns file under=()
  for ns in "$@"; do under+=(${under[0]+-o} -path "*/weft-lab-$name/${ns#"$name-"}/*"); done
  while IFS= read -r file; do
    case $file in *.state) echo THAWED ;; *) echo 0 ;; esac > "$file" 2> /dev/null || true
  done < <(find /sys/fs/cgroup \( "${under[@]}" \) \( -name freezer.state -o -name cgroup.freeze \) 2> /dev/null)
}
is_dying() {
  local status
  status=$(grep -s '^State:' "/proc/$1/status") || return 1
  [[ $status != *[ZX]\ * ]]
}
net_down() {
  local list
  mapfile -t list < <(ip netns list 2> /dev/null | awk '{ print $1 }' | grep -E "^$name-(u|x|h[0-9]+|s[1-3])$")
  [ ${#list[@]} = 0 ] || ns_down "${list[@]}"
}

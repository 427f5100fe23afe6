# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: etcd on the router, one member or three, each on its own address of the underlay.
# shellcheck shell=bash disable=SC2154

members() { if [ "$store" = etcd3 ]; then echo "1 2 3"; else echo 1; fi; }
member_address() { if [ "$1" = 1 ]; then echo 10.9.0.254; else echo "10.9.0.25$1"; fi; }
store_endpoints() {
  local m list=()
  for m in $(members); do list+=("$(member_address "$m"):2379"); done
  (IFS=,; echo "${list[*]}")
}

store_up() {
  local m
  case $store in etcd | etcd3) ;; *) wrong "--store $store: etcd, etcd3 or embedded" ;; esac
  mkdir -p "$state/store"
  for m in $(members); do
    [ "$m" = 1 ] || ip -n "$name-u" addr add "$(member_address "$m")/24" dev ubr
    start_etcd "$m"
  done
  for ((tries = 0; tries < 300; tries++)); do
    in_ns u curl -s -m 1 http://10.9.0.254:2379/health 2> /dev/null | grep -q true && return 0
    sleep 0.05
  done
  die "etcd does not answer: $(tail -n 3 "$state/store/etcd1.log")"
}

start_etcd() {
  local m=${1:-1} a cluster=() k
  [ "$(pid_of store "etcd$m")" = 0 ] || return 0
  a=$(member_address "$m")
  for k in $(members); do cluster+=("m$k=http://$(member_address "$k"):2380"); done
  setsid ip netns exec "$name-u" etcd --name "m$m" --data-dir "$state/store/data$m" \
    --listen-client-urls "http://$a:2379" --advertise-client-urls "http://$a:2379" \
    --listen-peer-urls "http://$a:2380" --initial-advertise-peer-urls "http://$a:2380" \
    --initial-cluster "$(IFS=,; echo "${cluster[*]}")" < /dev/null >> "$state/store/etcd$m.log" 2>&1 &
  echo $! > "$state/store/etcd$m.pid"
}

# SPDX-License-Identifier: Apache-2.0
# Part of scripts/lab: etcd, one member or three, each in a namespace and with a cable of its own, so that a test can cut it.
# shellcheck shell=bash disable=SC2154

members() {
  case $store in etcd) echo s1 ;; etcd3) echo s1 s2 s3 ;; esac
}
member_address() { echo "10.9.0.24${1#s}"; }
store_scheme=http
# store_list SUFFIX PREFIX: of all members, comma-separated
store_list() {
  local m list=()
  for m in $(members); do list+=("${2-}$(member_address "$m")$1"); done
  (IFS=,; echo "${list[*]}")
}

store_spawn() {
  local m
  for m in $(members); do
    link_to "$m" "24${m#s}" "${m#s}" 1 "$(widest)"
    mkdir -p "$state/$m"
    spawn_etcd "$m"
  done
}

spawn_etcd() {
  local m=$1 a k cluster=()
  [ "$(pid_of "$m" etcd)" = 0 ] || return 0
  a=$(member_address "$m")
  for k in $(members); do cluster+=("$k=$store_scheme://$(member_address "$k"):2380"); done
  touch "$state/$m/etcd.log"
  stat -c %s "$state/$m/etcd.log" > "$state/$m/etcd.offset"
  setsid ip netns exec "$name-$m" etcd --name "$m" --data-dir "$state/$m/data" \
    --listen-client-urls "$store_scheme://$a:2379" --advertise-client-urls "$store_scheme://$a:2379" \
    --listen-peer-urls "$store_scheme://$a:2380" --initial-advertise-peer-urls "$store_scheme://$a:2380" \
    --initial-cluster "$(IFS=,; echo "${cluster[*]}")" < /dev/null >> "$state/$m/etcd.log" 2>&1 9>&- &
  echo $! > "$state/$m/etcd.pid"
}

wait_etcd() {
  wait_until etcd_answers "$1" || die "etcd on $1 does not answer: $(tail -n 3 "$state/$1/etcd.log")"
}
etcd_answers() {
  # just started, it may not have entered its namespace yet
  [ "$(pid_of "$1" etcd)" != 0 ] || { kill -0 "$(cat "$state/$1/etcd.pid")" 2> /dev/null && return 1; return 2; }
  said "$1" etcd 'ready to serve client requests' || return 1
  # not by flag: etcdctl refuses what environment and flags both say
  ip netns exec "$name-$1" env ETCDCTL_API=3 "ETCDCTL_ENDPOINTS=$store_scheme://$(member_address "$1"):2379" \
    etcdctl endpoint health > /dev/null 2>&1
}
store_wait() { local m; for m in $(members); do wait_etcd "$m"; done; }

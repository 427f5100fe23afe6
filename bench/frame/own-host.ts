// SPDX-License-Identifier: Apache-2.0
// A host of its own for a section: network, mount and PID namespaces with an own /run, temporary files included.
// Nothing has to be cleaned up, not even after kill -9: when the first process of the PID namespace ends, the kernel ends all others, and
// namespaces, devices, tables and files go with the last. The first ends when its parent does (setpriv, unshare); it is
// a shell that buries whoever lost its parent.

/** Where temporary files go, for TMPDIR: memory, so that no disk is measured. */
export const temporary = '/run/tmp'

/** The host's underlay address, on eth0. */
export const underlay = '192.0.2.1'

const prepare = `
mount -t tmpfs run /run
mkdir -p /run/netns ${temporary}
ip link set lo up
ip link add eth0 type veth peer name wire
ip link set eth0 up
ip link set wire up
ip address add ${underlay}/24 dev eth0
code=0
"$@" || code=$?
exit $code
`

/** The command line that runs `argv` there. Needs root. */
export const inOwnHost = (argv: readonly string[]): readonly [string, ...string[]] => [
  'setpriv',
  ...['--pdeathsig', 'KILL'],
  ...['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc'],
  ...['sh', '-ec', prepare, 'sh'],
  ...argv,
]

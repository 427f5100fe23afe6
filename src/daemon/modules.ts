// SPDX-License-Identifier: Apache-2.0
// Kernel modules of the data path, where the kernel has modules at all: loaded by modprobe at start, because inside a
// network namespace nobody would load them for us. What is built in needs nothing.
import { execFile } from 'node:child_process'
import { access, readFile, writeFile } from 'node:fs/promises'
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

const wanted = [
  'vxlan',
  'bridge',
  'br_netfilter',
  'veth',
  'nf_tables',
  'nf_conntrack',
  'nft_fwd_netdev',
  'nft_ct',
  'nft_nat',
  'nft_masq',
  'nft_fib_inet',
  'nft_numgen',
  'nft_reject_inet',
  'nf_conntrack_netlink',
]

export const loadModules = async (log: Log): Promise<void> => {
  const loaded = await readFile('/proc/modules', 'utf8').catch(() => undefined)
  if (loaded === undefined) return // a kernel without modules
  const present = new Set(loaded.split('\n').map(line => line.split(' ')[0]))
  const missing = wanted.filter(name => !present.has(name))
  const modprobe = await firstThere(['/usr/sbin/modprobe', '/sbin/modprobe'])
  if (missing.length === 0 || modprobe === undefined) return
  const fresh = !present.has('br_netfilter')
  await new Promise<void>(resolve => {
    execFile(modprobe, ['--all', '--quiet', ...missing], { timeout: 20_000 }, error => {
      if (error) log.debug({ err: describe(error) }, 'modprobe')
      resolve()
    })
  })
  if (fresh) await keepHostUnfiltered()
}

/** Loading br_netfilter must not change what the host's own bridges do. */
const keepHostUnfiltered = async (): Promise<void> => {
  for (const name of ['bridge-nf-call-iptables', 'bridge-nf-call-ip6tables', 'bridge-nf-call-arptables'])
    await writeFile(`/proc/sys/net/bridge/${name}`, '0').catch(() => {})
}

const firstThere = async (paths: readonly string[]): Promise<string | undefined> => {
  for (const path of paths)
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path
  return undefined
}

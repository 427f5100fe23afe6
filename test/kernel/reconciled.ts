// SPDX-License-Identifier: Apache-2.0
// A snapshot made by hand, and this kernel kept as it says.
import type { Test } from 'tap'
import { systemClock } from '../../src/base/clock.ts'
import { silentLog } from '../../src/base/log.ts'
import { probeIpvs } from '../../src/kernel/ipvs.ts'
import { openLinuxKernel } from '../../src/kernel/linux.ts'
import type { Snapshot } from '../../src/model/snapshot.ts'
import type { Host } from '../../src/plan/host.ts'
import { openReconciler, type Reconciler } from '../../src/reconcile/reconciler.ts'
import { testMirror } from '../overlay/cluster.ts'

export interface Reconciled {
  readonly reconciler: Reconciler
  /** These records have changed. */
  tell(keys: readonly (readonly string[])[]): void
  close(): Promise<void>
}

/** Not started yet. */
export const openReconciled = (snapshot: Snapshot, host: Host | (() => Host)): Reconciled => {
  const kernel = openLinuxKernel(silentLog)
  const { mirror, tell } = testMirror(snapshot)
  const reconciler = openReconciler({
    mirror,
    kernel,
    host: typeof host === 'function' ? host : () => host,
    clock: systemClock,
    log: silentLog,
  })
  return {
    reconciler,
    tell,
    async close() {
      await reconciler.close()
      await kernel.close()
    },
  }
}

/**
 * Runs a test file again in a host of its own (network and mount namespaces with an own /run, eth0 with 192.0.2.1);
 * $WEFT_TEST_HOST says there which balancer.
 */
export const inOwnHost = (
  t: Test,
  file: string,
  balancer: 'nft' | 'ipvs' = 'nft',
  skip: string | false = false,
): void => {
  const prepare =
    'mount -t tmpfs run /run && mkdir -p /run/netns && ip link set lo up && ip link add eth0 type veth peer name wire && ip link set eth0 up && ip link set wire up && ip address add 192.0.2.1/24 dev eth0 && exec "$@"'
  t.spawn(
    'unshare',
    ['--net', '--mount', 'sh', '-c', prepare, 'sh', process.execPath, file],
    { env: { ...process.env, WEFT_TEST_HOST: balancer }, timeout: 1_200_000, skip },
    `in a host of its own, published ports by ${balancer}`,
  )
}

/** Once for each balancer that this kernel has, or for the one that $WEFT_LB names. */
export const inEachBalancer = async (t: Test, file: string): Promise<void> => {
  const only = process.env['WEFT_LB']
  if (only !== 'ipvs') inOwnHost(t, file)
  if (only === 'nft') return
  const reason = await probeIpvs().then(
    () => '',
    error => (error as Error).message,
  )
  // the emulated machine has everything: there it is an error
  inOwnHost(t, file, 'ipvs', reason === '' || process.env['WEFT_VM'] ? false : reason)
}

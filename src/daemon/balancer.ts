// SPDX-License-Identifier: Apache-2.0
// Which part of this host's kernel balances published ports: --lb.
import { NotSupportedError } from '../base/errors.ts'
import { probeIpvs } from '../kernel/ipvs.ts'
import type { Balancer } from '../plan/host.ts'

/** Throws NotSupportedError where IPVS is asked for and the kernel has none. */
export const chooseBalancer = async (asked: 'auto' | Balancer): Promise<Balancer> => {
  if (asked === 'nft') return 'nft'
  try {
    await probeIpvs()
    return 'ipvs'
  } catch (error) {
    if (asked === 'ipvs' || !(error instanceof NotSupportedError)) throw error
    return 'nft'
  }
}

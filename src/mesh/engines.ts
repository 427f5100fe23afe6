// SPDX-License-Identifier: Apache-2.0
// The balancers that a host may have.
import type { Balancer } from '../plan/host.ts'
import type { Engine } from './balancer.ts'
import { ipvs } from './ipvs.ts'
import { nft } from './nft.ts'

export const engines: Readonly<Record<Balancer, Engine>> = { ipvs, nft }

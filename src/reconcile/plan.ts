// SPDX-License-Identifier: Apache-2.0
// One unit in, the kernel objects it wants out: each kind of unit has its planner. Pure: no clock, no I/O, no memory.
import { planPort } from '../mesh/plan.ts'
import { planVip } from '../mesh/vip-plan.ts'
import { type Inputs, planOverlay } from '../overlay/plan.ts'
import type { Planned, Unit } from '../plan/unit.ts'

export const plan = (unit: Unit, inputs: Inputs): Planned => {
  switch (unit.kind) {
    case 'port':
      return planPort(unit.proto, unit.port, inputs.snapshot, inputs.host)
    case 'vip':
      return planVip(unit.network, unit.service, inputs.snapshot, inputs.host)
    default:
      return planOverlay(unit, inputs)
  }
}

// SPDX-License-Identifier: Apache-2.0
// Compare-and-swap loops: look, try, and look again when somebody was faster.
import { sleep } from '../base/clock.ts'
import { ConflictError } from '../base/errors.ts'
import type { Context } from './context.ts'

/**
 * Repeats `work` while it throws ConflictError, with growing jittered pauses; the last conflict is thrown. `again`: not the
 * first try.
 */
export const attempt = async <T>(
  { clock }: Context,
  signal: AbortSignal,
  work: (again: boolean) => Promise<T>,
): Promise<T> => {
  for (let tries = 1; ; tries++) {
    try {
      return await work(tries > 1)
    } catch (error) {
      if (!(error instanceof ConflictError) || tries >= 100) throw error
      await sleep(clock, Math.random() * Math.min(tries, 20) * 4, signal)
    }
  }
}

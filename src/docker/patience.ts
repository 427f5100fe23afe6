// SPDX-License-Identifier: Apache-2.0
// What a call that takes something away may wait for: a moment. The rest goes on by itself, and whatever does not get
// done the journal of departures or the sweeper does later, so that `docker stop` never waits for the store.
const momentMs = 300

/** Resolves when the work is done, has failed, or a moment is over. */
export const forAMoment = async (work: Promise<void>): Promise<void> => {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>(resolve => {
    timer = setTimeout(resolve, momentMs)
  })
  await Promise.race([work.catch(() => {}), over])
  clearTimeout(timer)
}

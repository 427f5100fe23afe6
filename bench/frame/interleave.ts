// SPDX-License-Identifier: Apache-2.0
// Ours and its peers in turns, A B A B: whatever else the machine does meets all of them. Nothing is left out, the
// first run neither.

/** Prepares, measures, clears away; gives what it measured. */
export type Variant = () => Promise<number>

export const interleave = async <K extends string>(
  runs: number,
  variants: Readonly<Record<K, Variant>>,
): Promise<Record<K, number[]>> => {
  const names = Object.keys(variants) as K[]
  const values = Object.fromEntries(names.map(name => [name, []])) as unknown as Record<K, number[]>
  for (let run = 0; run < runs; run++) for (const name of names) values[name].push(await variants[name]())
  return values
}

/** Wall time in ms. */
export const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const from = performance.now()
  await work()
  return performance.now() - from
}

/** Rejects when it takes longer: a section that waits for what does not come has to say so. */
export const within = async <T>(ms: number, work: Promise<T>, what: string): Promise<T> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${ms / 1000} s`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

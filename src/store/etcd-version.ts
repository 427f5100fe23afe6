// SPDX-License-Identifier: Apache-2.0
// What is known to be wrong with a version of etcd.

/** '3.4.23' → what to tell the operator; empty: nothing known. */
export const knownProblems = (version: string): readonly string[] => {
  const [major, minor, patch] = /(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number) ?? []
  if (major === undefined || minor === undefined || patch === undefined) return ['a version that weft does not know']
  if (major !== 3 || minor > 6) return []
  if (minor < 4) return ['older than 3.4: weft needs progress requests and fragments of a watch']
  const problems: string[] = []
  if ((minor === 4 && patch < 36) || (minor === 5 && patch < 18))
    problems.push('loses events of a watch around compactions (fixed by 3.4.36 and 3.5.18)')
  if (minor === 4 || (minor === 5 && patch < 33) || (minor === 6 && patch < 14))
    problems.push('has holes in its authorization, CVE-2026-33343 (fixed by 3.5.33 and 3.6.14)')
  return problems
}

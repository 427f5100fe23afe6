// SPDX-License-Identifier: Apache-2.0
// Version of weft, as in package.json (a test holds them equal).
export const version = '0.1.0'

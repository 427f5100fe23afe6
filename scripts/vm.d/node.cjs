// SPDX-License-Identifier: Apache-2.0
// For every Node in the VM: WebAssembly (what strips types from our sources) stays with its first compiler. When V8
// replaces code by better code and frees the first, an emulated processor is slow enough to be still in it: of 150 starts
// five ended with a segmentation fault, of 110 without the second compiler none.
require('node:v8').setFlagsFromString('--liftoff-only')

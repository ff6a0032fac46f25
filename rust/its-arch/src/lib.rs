// SPDX-License-Identifier: GPL-2.0-only
//! The GICv3 ITS as types.
#![no_std]
#![forbid(unsafe_code)]

//! Checks that `swarmedge-core` and all its dependencies compile without std: see the `guard` feature.
#![no_std]

use swarmedge_core as _;

#[cfg(feature = "guard")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

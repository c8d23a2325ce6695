//! Proof that `swarmedge-core` and all that it depends on do without std: see the `guard` feature.
#![no_std]

use swarmedge_core as _;

#[cfg(feature = "guard")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

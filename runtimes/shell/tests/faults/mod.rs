//! Fault injection: real processes of several deployments side by side meet failing system calls, SIGKILL, SIGSTOP and
//! clocks that jump. After each fault, without a restart of what was not killed, downloads with peers complete and the
//! ledger is right to the byte.
//!
//! By itself the test injects four faults. `SWARMEDGE_FAULTS=N` injects N, `all` every fault at every role twice;
//! `SWARMEDGE_FAULTS_SEED` repeats a run, `SWARMEDGE_FAULTS_ONLY=TEXT` keeps the cases whose name contains the text,
//! as in "edge: write", and `SWARMEDGE_FAULTS_NETS` is the number of deployments.

mod inject;
mod kinds;
mod net;
mod preload;
mod run;
mod spools;

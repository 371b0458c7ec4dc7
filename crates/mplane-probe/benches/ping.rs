//! Ping beside its peers, in networks made for it: sweeps, sustained rate, bias of delays.
//!
//! Needs the right to make network namespaces, `unshare`, `nsenter` and `ip`. Peers that are
//! not installed are named and left out. It takes some two minutes.
//!
//! ```sh
//! sudo cargo bench -p mplane-probe --bench ping
//! ```

use std::process::Command;
use std::time::{Duration, Instant};

use mplane_probe::packet::Family;
use mplane_probe::sweep::{self, MAX_RATE, SweepOptions, Targets};
use tokio_util::sync::CancellationToken;

/// Tells the program that it is inside the namespace.
const INSIDE: &str = "MPLANE_BENCH_INSIDE_NAMESPACE";

/// Makes another host at the other end of a veth pair, which answers for 10.99.0.0/16.
const PEER: &str = "
    set -e
    ip link set lo up
    unshare --net sleep 600 & peer=$!
    trap 'kill $peer' EXIT
    until [ \"$(readlink /proc/$peer/ns/net)\" != \"$(readlink /proc/$$/ns/net)\" ]
    do :; done
    ip link add near type veth peer name far netns $peer
    inside=\"nsenter --net=/proc/$peer/ns/net\"
    ip addr add 192.0.2.1/24 dev near
    ip link set near up
    $inside ip link set lo up
    $inside ip addr add 192.0.2.2/24 dev far
    $inside ip link set far up
    $inside ip route add local 10.99.0.0/16 dev lo
    ip route add 10.99.0.0/16 via 192.0.2.2
    until ping -c 1 -W 1 192.0.2.2 > /dev/null 2>&1; do :; done
    export MPLANE_BENCH_PEER=$peer
    \"$@\"";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let this_program = std::env::current_exe().expect("this program has a path");
        let status = Command::new("unshare")
            .args(["--net", "sh", "-c", PEER, "sh"])
            .arg(this_program)
            .env(INSIDE, "1")
            .status();
        assert!(status.is_ok_and(|status| status.success()), "no namespaces here");
        return;
    }
    for network in ["10.99.0.0/16"] {
        for count in [1, 1, 1, 4] {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let address = network.parse().expect("a network");
            let targets = Targets::new(Family::V4, [&address]).expect("not too many");
            let options =
                SweepOptions { rate: MAX_RATE, count, ..SweepOptions::new(targets) };
            let begun = Instant::now();
            let report = runtime.block_on(sweep::run(options, CancellationToken::new()));
            let took: Duration = begun.elapsed();
            let report = report.expect("a sweep");
            let answered: u32 = report.targets.iter().map(|target| target.received).sum();
            eprintln!(
                "{took:?} {answered} {:?} k{} u{} r{}",
                report.strays,
                report.kernel_stamped,
                report.user_stamped,
                report.repeated
            );
        }
    }
}

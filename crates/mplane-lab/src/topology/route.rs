//! Routes: the shortest paths by number of links, all of them where several are equal.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::{EndPlan, Prefix, Topology};

/// A route of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub network: Prefix,
    /// Through whom; several gateways share the flows.
    pub gateways: Vec<Gateway>,
}

/// The next host of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The interface that leads to it.
    pub interface: String,
}

/// Returns the routes of each host, in the order of the hosts: to every network of the lab
/// that the host is not in itself and that can be reached through routers.
pub fn routes(topology: &Topology) -> Vec<Vec<Route>> {
    let mut routes = vec![Vec::new(); topology.hosts.len()];
    for (network, owners) in networks(topology) {
        let distances = distances(topology, &owners);
        for (host, list) in routes.iter_mut().enumerate() {
            if is_in(topology, host, network) {
                continue;
            }
            let gateways = gateways(topology, host, &owners, &distances, network);
            if !gateways.is_empty() {
                list.push(Route { network, gateways });
            }
        }
    }
    routes
}

/// Returns all networks, and the hosts where packets for them have arrived: the routers on
/// a link if there are any, since they can pass a packet on to the other end.
fn networks(topology: &Topology) -> Vec<(Prefix, Vec<usize>)> {
    let mut networks = Vec::new();
    for link in &topology.links {
        let ends = link.ends.each_ref().map(|end| end.host);
        let is_router = |host: &usize| is_router(topology, *host);
        let routers: Vec<_> = ends.into_iter().filter(is_router).collect();
        let owners = if routers.is_empty() { ends.to_vec() } else { routers };
        let [end, _] = &link.ends;
        for address in &end.addresses {
            networks.push((address.network(), owners.clone()));
        }
    }
    for (host, plan) in topology.hosts.iter().enumerate() {
        networks.extend(plan.prefixes.iter().map(|prefix| (*prefix, vec![host])));
    }
    networks
}

/// Returns whether a host is in a network itself.
fn is_in(topology: &Topology, host: usize, network: Prefix) -> bool {
    let is_own = topology.hosts.get(host).is_some_and(|h| h.prefixes.contains(&network));
    let mut ends = topology.links.iter().flat_map(|link| &link.ends);
    is_own
        || ends.any(|end| {
            let mut addresses = end.addresses.iter();
            end.host == host && addresses.any(|address| address.network() == network)
        })
}

/// Returns how many links each host is away from the nearest owner, if it can be reached.
fn distances(topology: &Topology, owners: &[usize]) -> Vec<Option<usize>> {
    let mut distances = vec![None; topology.hosts.len()];
    let mut queue: VecDeque<_> = owners.iter().map(|owner| (*owner, 0)).collect();
    while let Some((host, distance)) = queue.pop_front() {
        let Some(known @ None) = distances.get_mut(host) else { continue };
        *known = Some(distance);
        if is_passing(topology, host, owners) {
            let near = neighbours(topology, host);
            queue.extend(near.map(|(_, peer)| (peer.host, distance + 1)));
        }
    }
    distances
}

/// Returns whether packets that a host gets for a network go on: to itself or as a router.
fn is_passing(topology: &Topology, host: usize, owners: &[usize]) -> bool {
    owners.contains(&host) || is_router(topology, host)
}

/// Returns whether a host forwards.
fn is_router(topology: &Topology, host: usize) -> bool {
    topology.hosts.get(host).is_some_and(|plan| plan.is_router)
}

/// Returns the ends of the links of a host: its own and the other.
fn neighbours(
    topology: &Topology,
    host: usize,
) -> impl Iterator<Item = (&EndPlan, &EndPlan)> {
    topology.links.iter().filter_map(move |link| {
        let [one, two] = &link.ends;
        match (one.host == host, two.host == host) {
            (true, _) => Some((one, two)),
            (_, true) => Some((two, one)),
            _ => None,
        }
    })
}

/// Returns the neighbours that are one link nearer.
fn gateways(
    topology: &Topology,
    host: usize,
    owners: &[usize],
    distances: &[Option<usize>],
    network: Prefix,
) -> Vec<Gateway> {
    let Some(Some(distance)) = distances.get(host) else { return Vec::new() };
    let nearer = neighbours(topology, host).filter(|(_, peer)| {
        let known = distances.get(peer.host).copied().flatten();
        known.is_some_and(|known| known < *distance)
            && is_passing(topology, peer.host, owners)
    });
    let is_same_family =
        |prefix: &&Prefix| prefix.address.is_ipv4() == network.address.is_ipv4();
    nearer
        .filter_map(|(own, peer)| {
            let address = peer.addresses.iter().find(is_same_family)?.address;
            Some(Gateway { address, interface: own.interface.clone() })
        })
        .collect()
}

//! What can be asked for: the five sets of columns of `log_tcp_complete`.

use super::Flag;

/// A set of columns, which tStat logs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Who spoke with whom, how much and when.
    Core,
    /// Round-trip times and times to live.
    EndToEnd,
    /// Messages of peer-to-peer programs.
    P2pStats,
    /// Options, windows and retransmissions of TCP.
    TcpOptions,
    /// Messages and names in TLS handshakes.
    Layer7,
}

/// A result column and where its values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The element.
    pub element: &'static str,
    /// The columns of the log that may have it: releases of tStat differ.
    pub log: &'static [&'static str],
}

impl Set {
    /// Every set, in the order of the reference.
    pub const ALL: [Self; 5] =
        [Self::Core, Self::EndToEnd, Self::TcpOptions, Self::P2pStats, Self::Layer7];

    /// Returns the label of its capability, the reference's.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Core => "tstat-log_tcp_complete-core",
            Self::EndToEnd => "tstat-log_tcp_complete-end_to_end",
            Self::P2pStats => "tstat-log_tcp_complete-p2p_stats",
            Self::TcpOptions => "tstat-log_tcp_complete-tcp_options",
            Self::Layer7 => "tstat-log_tcp_complete-layer7",
        }
    }

    /// Returns the flags that must be on: that of the log, and that of the set.
    pub const fn flags(self) -> &'static [Flag] {
        match self {
            Self::Core => &[Flag::LogTcpComplete],
            Self::EndToEnd => &[Flag::LogTcpComplete, Flag::EndToEnd],
            Self::P2pStats => &[Flag::LogTcpComplete, Flag::P2p],
            Self::TcpOptions => &[Flag::LogTcpComplete, Flag::Options],
            Self::Layer7 => &[Flag::LogTcpComplete, Flag::Layer7],
        }
    }

    /// Returns the result columns, in the order of the reference.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Core => CORE,
            Self::EndToEnd => END_TO_END,
            Self::P2pStats => P2P_STATS,
            Self::TcpOptions => TCP_OPTIONS,
            Self::Layer7 => LAYER7,
        }
    }
}

/// Makes a list of columns from pairs of an element and columns of the log.
macro_rules! columns {
    ($($element:literal = $($log:literal)|+,)*) => {
        &[$(Column { element: $element, log: &[$($log),+] },)*]
    };
}

/// The columns of [`Set::Core`].
const CORE: &[Column] = columns![
    "initiator.ip4" = "c_ip",
    "initiator.port" = "c_port",
    "packets.forward" = "c_pkts_all",
    "packets.forward.syn" = "c_syn_cnt",
    "packets.forward.fin" = "c_fin_cnt",
    "packets.forward.rst" = "c_rst_cnt",
    "packets.forward.ack" = "c_ack_cnt",
    "packets.forward.pure_ack" = "c_ack_cnt_p",
    "packets.forward.with_payload" = "c_pkts_data",
    "packets.forward.rxmit" = "c_pkts_retx",
    "packets.forward.outseq" = "c_pkts_ooo",
    "bytes.forward" = "c_bytes_all",
    "bytes.forward.unique" = "c_bytes_uniq",
    "bytes.forward.rxmit" = "c_bytes_retx",
    "responder.ip4" = "s_ip",
    "responder.port" = "s_port",
    "packets.backward" = "s_pkts_all",
    "packets.backward.syn" = "s_syn_cnt",
    "packets.backward.fin" = "s_fin_cnt",
    "packets.backward.rst" = "s_rst_cnt",
    "packets.backward.ack" = "s_ack_cnt",
    "packets.backward.pure_ack" = "s_ack_cnt_p",
    "packets.backward.with_payload" = "s_pkts_data",
    "packets.backward.rxmit" = "s_pkts_retx",
    "packets.backward.outseq" = "s_pkts_ooo",
    "bytes.backward" = "s_bytes_all",
    "bytes.backward.unique" = "s_bytes_uniq",
    "bytes.backward.rxmit" = "s_bytes_retx",
    "start" = "first",
    "end" = "last",
    "duration.ms" = "durat",
    "initiator.TTFP.ms" = "c_first",
    "responder.TTFP.ms" = "s_first",
    "initiator.TTLP.ms" = "c_last",
    "responder.TTLP.ms" = "s_last",
    "initiator.TTFA.ms" = "c_first_ack",
    "responder.TTFA.ms" = "s_first_ack",
    "initiator.ip4.isinternal" = "c_isint",
    "responder.ip4.isinternal" = "s_isint",
    "tstat.flow.class.conn" = "con_t",
    "tstat.flow.class.p2p" = "p2p_t",
    "tstat.flow.class.http" = "http_t",
];

/// The columns of [`Set::EndToEnd`]: those of the reference, which has one direction only and
/// does not say which, are of the initiator's segments; those of the responder follow.
const END_TO_END: &[Column] = columns![
    "rtt.average.ms" = "c_rtt_avg",
    "rtt.min.ms" = "c_rtt_min",
    "rtt.max.ms" = "c_rtt_max",
    "rtt.stddev" = "c_rtt_std",
    "rtt.samples" = "c_rtt_cnt",
    "ttl.min" = "c_ttl_min",
    "ttl.max" = "c_ttl_max",
    "responder.rtt.average.ms" = "s_rtt_avg",
    "responder.rtt.min.ms" = "s_rtt_min",
    "responder.rtt.max.ms" = "s_rtt_max",
    "responder.rtt.stddev" = "s_rtt_std",
    "responder.rtt.samples" = "s_rtt_cnt",
    "responder.ttl.min" = "s_ttl_min",
    "responder.ttl.max" = "s_ttl_max",
];

/// The columns of [`Set::P2pStats`].
const P2P_STATS: &[Column] = columns![
    "p2p.subtype" = "p2p_st",
    "ed2k.data" = "ed2k_data",
    "ed2k.signaling" = "ed2k_sig",
    "ed2k.i2r" = "ed2k_c2s",
    "ed2k.r2i" = "ed2k_c2c",
    "ed2k.chat" = "ed2k_chat",
];

/// The columns of [`Set::TcpOptions`].
const TCP_OPTIONS: &[Column] = columns![
    "initiator.RFC1323.ws" = "c_f1323_opt",
    "initiator.RFC1323.ts" = "c_tm_opt",
    "initiator.win_scale" = "c_win_scl",
    "initiator.SACK_set" = "c_sack_opt",
    "initiator.SACK" = "c_sack_cnt",
    "initiator.MSS.bytes" = "c_mss",
    "initiator.segment.max.bytes" = "c_mss_max",
    "initiator.segment.min.bytes" = "c_mss_min",
    "initiator.window.max.bytes" = "c_win_max",
    "initiator.window.min.bytes" = "c_win_min",
    "initiator.window.zero" = "c_win_0",
    "initiator.cwin.max.bytes" = "c_cwin_max",
    "initiator.cwin.min.bytes" = "c_cwin_min",
    "initiator.cwin.first.bytes" = "c_cwin_ini",
    "initiator.rxmit.RTO" = "c_pkts_rto",
    "initiator.rxmit.RTO.unnecessary" = "c_pkts_unrto",
    "initiator.rxmit.FR" = "c_pkts_fs",
    "initiator.rxmit.FR.unnecessary" = "c_pkts_unfs",
    "initiator.reordering" = "c_pkts_reor",
    "initiator.net_dup" = "c_pkts_dup",
    "initiator.unknown" = "c_pkts_unk",
    "initiator.flow_control" = "c_pkts_fc",
    "initiator.SYN.equal_seqno" = "c_syn_retx",
    "responder.RFC1323.ws" = "s_f1323_opt",
    "responder.RFC1323.ts" = "s_tm_opt",
    "responder.win_scale" = "s_win_scl",
    "responder.SACK_set" = "s_sack_opt",
    "responder.SACK" = "s_sack_cnt",
    "responder.MSS.bytes" = "s_mss",
    "responder.segment.max.bytes" = "s_mss_max",
    "responder.segment.min.bytes" = "s_mss_min",
    "responder.window.max.bytes" = "s_win_max",
    "responder.window.min.bytes" = "s_win_min",
    "responder.window.zero" = "s_win_0",
    "responder.cwin.max.bytes" = "s_cwin_max",
    "responder.cwin.min.bytes" = "s_cwin_min",
    "responder.cwin.first.bytes" = "s_cwin_ini",
    "responder.rxmit.RTO" = "s_pkts_rto",
    "responder.rxmit.RTO.unnecessary" = "s_pkts_unrto",
    "responder.rxmit.FR" = "s_pkts_fs",
    "responder.rxmit.FR.unnecessary" = "s_pkts_unfs",
    "responder.reordering" = "s_pkts_reor",
    "responder.net_dup" = "s_pkts_dup",
    "responder.unknown" = "s_pkts_unk",
    "responder.flow_control" = "s_pkts_fc",
    "responder.SYN.equal_seqno" = "s_syn_retx",
];

/// The columns of [`Set::Layer7`].
const LAYER7: &[Column] = columns![
    "initiator.psh_separated" = "c_pkts_push",
    "responder.psh_separated" = "s_pkts_push",
    "ssl.hello.client" = "c_tls_SNI" | "c_ssl_SNI",
    "ssl.hello.server" = "s_tls_SCN" | "s_ssl_SCN",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_the_columns_of_the_reference() {
        let counts = Set::ALL.map(|set| set.columns().len());
        // The second direction of round-trip times is ours.
        assert_eq!(counts, [42, 7 + 7, 46, 6, 4]);
        for set in Set::ALL {
            for (index, column) in set.columns().iter().enumerate() {
                let others = &set.columns()[index + 1..];
                let is_other = |other: &Column| {
                    other.element != column.element && other.log != column.log
                };
                assert!(others.iter().all(is_other), "{column:?}");
            }
        }
    }
}

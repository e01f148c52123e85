"""Connections between nodes (TLS 1.3, both ends certified) and what is served over them.

Public for other daemons (bodies follow):
    Remote(endpoints, tls, network, chain, log)     several validators of one chain, with fail-over
        follow(from_height) -> AsyncIterator[bytes]             CertifiedBlock bytes, heights ascending without a gap
        messages(target_chain, from_sequence) -> AsyncIterator[bytes]   Inbox batches, one per block
        await submit(tx) -> str                                 "" or the reason
"""

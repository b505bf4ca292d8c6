#!/usr/bin/env python3
"""Writes the conformance vectors into this directory: segment images and what docs/protocol.md says of them.

Nothing here but struct and that page. A vector is a text file; numbers are decimal, bytes hexadecimal, "-" is no bytes:

    # what it is about
    size N               bytes of the object; what no "at" line names is 0
    seals N              seals of the object (SEAL 1, SHRINK 2, GROW 4)
    token HEX            the token of the client's SHM.OPEN
    at OFFSET HEX        bytes of the image
    open ok|refused      whether a client may use it
    read FIFO HEX END    FIFO request or reply: what its reader gets, and then: empty, end (the writer closed) or broken (a violation)
    write FIFO HEX       what a writer of FIFO then writes, in one record if it can
    holds OFFSET HEX     what the image holds afterwards (tags are advice: bytes 5 to 7 of a record's header are not compared)

"read" and "write" need not be done by one side in real life; a reader and a writer attach to the image as it is.
"""
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
RING = 4096
FIFO = 8192  # RING + 128, rounded up to 4096
SIZE = 4096 + 2 * FIFO
REQUEST, REPLY = 4096, 4096 + FIFO
DATA = 128
TOKEN = bytes(range(1, 17))


def header(magic=b"RSHM\r\n\x1a\x00", version=2, header_bytes=320, segment_bytes=SIZE, ring=RING, request=REQUEST, reply=REPLY, token=TOKEN):
    return struct.pack("<8sIIQQQQ16s", magic, version, header_bytes, segment_bytes, ring, request, reply, token)


def record(payload, kind=1, tag=0, length=None):
    return struct.pack("<Q", (len(payload) if length is None else length) | kind << 32 | tag << 40) + payload


def padded(data, filler=b"\0"):
    return data + filler * (-len(data) % 64)


def vector(name, about, *lines, head=None, size=SIZE, seals=7, at=(), opens="ok"):
    text = [f"# {about}", f"size {size}", f"seals {seals}", f"token {TOKEN.hex()}", f"at 0 {(header() if head is None else head).hex()}"]
    text += [f"at {off} {data.hex()}" for off, data in at] + [f"open {opens}"] + list(lines)
    (HERE / f"{name}.vector").write_text("\n".join(text) + "\n")


def refused(name, about, **how):
    vector("refused-" + name, about, opens="refused", **how)


def reads(name, about, stream, end, data, fifo="reply", read_pos=0):
    """data: (position, bytes) of records; they lie where position modulo the ring says."""
    base = REPLY if fifo == "reply" else REQUEST
    at = [(base, struct.pack("<Q", read_pos % 2**64))] + [(base + DATA + p % RING, b) for p, b in data]
    vector(name, about, f"read {fifo} {stream.hex() or '-'} {end}", at=at)


def main():
    for old in HERE.glob("*.vector"):
        old.unlink()
    vector("fresh", "as the server makes it: both FIFOs are empty", "read request - empty", "read reply - empty")
    vector("ping", "a request in one direction and its reply in the other", f"read request {b'*1 $4 PING'.hex()} empty",
           f"read reply {b'+PONG'.hex()} empty",
           at=[(REQUEST + DATA, record(b"*1 $4 PING")), (REPLY + DATA, record(b"+PONG"))])
    vector("flags", "flags, tags and spare bytes change nothing in what is read", f"read reply {b'+PONG'.hex()} empty",
           at=[(64, struct.pack("<I", 3)), (128, struct.pack("<I", 1)), (192, struct.pack("<I", 2)), (256, struct.pack("<I", 1)),
               (1000, b"spare"), (REPLY + 64, b"\xff" * 64), (REPLY + DATA, record(b"+PONG", tag=0xABCDEF))])
    reads("padding", "padding has any contents", b"abcde", "empty",
          [(0, padded(record(b"ab"), b"\xee") + padded(record(b"cde"), b"\xee"))])
    reads("line-full", "8 + 56 bytes fill a line: the next record is the next line", b"x" * 56 + b"y", "empty",
          [(0, record(b"x" * 56) + record(b"y"))])
    reads("line-and-a-byte", "8 + 57 bytes take two lines", b"x" * 57 + b"y", "empty", [(0, padded(record(b"x" * 57)) + record(b"y"))])
    reads("longest", "a quarter of the ring, header included", b"z" * 1016, "empty", [(0, record(b"z" * 1016))])
    reads("last-line", "a record in the last line of the data; the next one is at its beginning", b"lastfirst", "empty",
          [(4032, record(b"last")), (4096, record(b"first"))], read_pos=4032)
    reads("last-line-full", "it may fill the data to its last byte", b"q" * 56, "empty", [(4032, record(b"q" * 56))], read_pos=4032)
    reads("positions-wrap", "positions are 64 bits that wrap", b"beforeafter", "empty",
          [(2**64 - 64, record(b"before")), (0, record(b"after"))], read_pos=2**64 - 64)
    reads("in-requests", "the request FIFO is read alike", b"somewhere", "empty", [(1024, record(b"somewhere"))], fifo="request", read_pos=1024)
    reads("end", "an end record: no more will come, whatever lies behind it", b"bye", "end",
          [(0, padded(record(b"bye")) + padded(record(b"", kind=2)) + record(b"ghost"))])
    reads("end-at-once", "closed without a byte", b"", "end", [(0, record(b"", kind=2))])

    reads("broken-kind-0", "a length with kind 0", b"ok", "broken", [(0, padded(record(b"ok")) + record(b"abc", kind=0))])
    reads("broken-kind-3", "a kind that is not on the page", b"", "broken", [(0, record(b"abc", kind=3))])
    reads("broken-length-0", "kind 1 with no bytes", b"", "broken", [(0, record(b"", kind=1))])
    reads("broken-too-long", "one byte more than a quarter of the ring", b"", "broken", [(0, record(b"z" * 1017))])
    reads("broken-length-huge", "a length near 2^32", b"", "broken", [(0, record(b"", length=0xFFFFFFFF))])
    reads("broken-crosses-the-end", "a record that would cross the end of the data", b"", "broken", [(4032, record(b"q" * 56, length=57))],
          read_pos=4032)
    reads("broken-end-with-length", "an end record with a length", b"", "broken", [(0, record(b"a", kind=2))])

    refused("magic", "another magic", head=header(magic=b"RSHM\r\n\x1a\x01"))
    refused("version", "another version", head=header(version=3))
    refused("header-bytes", "another length of the header", head=header(header_bytes=384))
    refused("segment-bytes", "segment_bytes is not the object's size", head=header(segment_bytes=SIZE - 4096))
    refused("object-longer", "the object is longer than the segment", size=SIZE + 4096)
    refused("object-shorter", "the object is shorter than the segment", size=SIZE - 4096)
    refused("object-tiny", "the object does not even hold the header", size=64, head=header()[:32])
    refused("ring-odd", "ring_bytes is no power of two", head=header(ring=4096 + 64))
    refused("ring-small", "ring_bytes is below 4096", head=header(ring=2048))
    refused("ring-zero", "ring_bytes is 0", head=header(ring=0))
    refused("ring-huge", "ring_bytes is above 2^30", head=header(ring=2**31))
    refused("ring-of-another-size", "a good ring_bytes that the offsets do not fit", head=header(ring=8192))
    refused("request-off", "request_off is elsewhere", head=header(request=4096 + 64))
    refused("reply-off", "reply_off is elsewhere", head=header(reply=REQUEST))
    refused("token", "another connection's token", head=header(token=bytes(16)))
    refused("no-seals", "not sealed: the other side could shrink it", seals=0)
    refused("no-shrink-seal", "all seals but the one that matters most", seals=5)
    refused("no-seal-seal", "what is not sealed against seals is not wrong now, but the page asks for all three", seals=6)

    vector("write-request", "a record: the header behind it is 0, then its own is there", f"write request {b'hello'.hex()}",
           f"holds {REQUEST + DATA} {record(b'hello').hex()}", f"holds {REQUEST + DATA + 64} {bytes(8).hex()}",
           at=[(REQUEST + DATA + 64, b"old data")])
    vector("write-last-line", "behind the last line is the first one", f"write reply {b'tail'.hex()}",
           f"holds {REPLY + DATA + 4032} {record(b'tail').hex()}", f"holds {REPLY + DATA} {bytes(8).hex()}",
           at=[(REPLY, struct.pack("<Q", 4032)), (REPLY + DATA, b"old data")])


if __name__ == "__main__":
    main()

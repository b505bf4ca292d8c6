"""The relocation slots of a running program, looked at from outside: addresses from the ELF file, values from /proc/PID/mem."""
import os
import pathlib
import struct

DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL, DT_PLTRELSZ = 5, 6, 7, 8, 23, 2
SLOT_TYPES = {62: (6, 7), 183: (1025, 1026)}  # x86-64, aarch64: GLOB_DAT, JUMP_SLOT
ET_DYN, PT_LOAD, PT_DYNAMIC = 3, 1, 2


class Program:
    """The main program of process pid."""

    def __init__(self, pid):
        self.pid = pid
        self.path = os.readlink(f"/proc/{pid}/exe")
        self.data = pathlib.Path(self.path).read_bytes()
        kind, machine = struct.unpack_from("<HH", self.data, 16)
        offset, size, count = struct.unpack_from("<Q", self.data, 32)[0], *struct.unpack_from("<HH", self.data, 54)
        self.headers = [struct.unpack_from("<IIQQQQQQ", self.data, offset + i * size) for i in range(count)]
        first = min(h[3] for h in self.headers if h[0] == PT_LOAD)
        self.base = min(lo for lo, _, _ in self.mappings()) - first // 4096 * 4096 if kind == ET_DYN else 0
        self.slots = self._slots(SLOT_TYPES[machine])

    def _file_offset(self, address):
        for h in self.headers:
            if h[0] == PT_LOAD and h[3] <= address < h[3] + h[5]:
                return address - h[3] + h[2]
        raise ValueError(hex(address))

    def _slots(self, types):
        """name -> addresses in the process."""
        at, n = next((h[2], h[5]) for h in self.headers if h[0] == PT_DYNAMIC)
        dynamic = dict(struct.unpack_from("<QQ", self.data, at + i) for i in range(0, n, 16))
        strings, symbols = self._file_offset(dynamic[DT_STRTAB]), self._file_offset(dynamic[DT_SYMTAB])
        slots = {}
        for table, table_bytes in ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)):
            if table not in dynamic:
                continue
            start = self._file_offset(dynamic[table])
            for i in range(start, start + dynamic[table_bytes], 24):
                address, info, _ = struct.unpack_from("<QQq", self.data, i)
                if info & 0xFFFFFFFF not in types:
                    continue
                name_at = strings + struct.unpack_from("<I", self.data, symbols + (info >> 32) * 24)[0]
                name = self.data[name_at:self.data.index(b"\0", name_at)].decode()
                slots.setdefault(name, []).append(self.base + address)
        return slots

    def mappings(self):
        """(from, to, permissions) of the parts of the program's file that are mapped, and of what follows each directly."""
        rows = []
        for line in pathlib.Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            lo, hi = (int(x, 16) for x in fields[0].split("-"))
            if len(fields) == 6 and fields[5] == self.path or rows and rows[-1][1] == lo and len(fields) == 5:
                rows.append((lo, hi, fields[1]))
        return rows

    def permissions(self):
        """What maps says of the program, neighbours of equal permissions joined."""
        joined = []
        for lo, hi, bits in self.mappings():
            if joined and joined[-1][1] == lo and joined[-1][2] == bits:
                joined[-1] = (joined[-1][0], hi, bits)
            else:
                joined.append((lo, hi, bits))
        return joined

    def values(self):
        """name -> values of its slots."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            def read(address):
                memory.seek(address)
                return struct.unpack("<Q", memory.read(8))[0]
            return {name: [read(a) for a in addresses] for name, addresses in self.slots.items()}

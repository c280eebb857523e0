"""Machine code as nvdisasm prints it, of a short form."""


def disassembly(short: str) -> str:
    """Lines "FADD R0, R1", "@P0 BRA loop" or "loop:", as nvdisasm prints them."""
    lines, address = [".text.kernel:"], 0
    for line in filter(None, map(str.strip, short.splitlines())):
        if line.endswith(":"):
            lines.append(f".L_{line}")
            continue
        words = line.split(" ")
        at = next((n for n, word in enumerate(words) if word.startswith("BRA")), None)
        if at is not None and len(words) > at + 1:
            words[-1] = f"`(.L_{words[-1]})"
        lines.append(f"        /*{address:04x}*/                   {' '.join(words)} ;")
        address += 16
    return "\n".join(lines)

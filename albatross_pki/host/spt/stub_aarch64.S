// The aarch64 twin of stub_x86_64.S: the same table at the same address, the same meaning of every word.
// Assemble with `aarch64-linux-gnu-as`; the octets of .text stand in stub.py.

        .set    TABLE, 0x21000
        .set    ROW, 88
        .set    SYS_write, 64
        .set    SYS_exit_group, 94

        .text
        .globl  _start
_start:
        mov     x19, #(TABLE & 0xffff)
        movk    x19, #(TABLE >> 16), lsl #16
call:
        ldr     x8, [x19]
        tbnz    x8, #63, enter
        ldp     x0, x1, [x19, #8]
        ldp     x2, x3, [x19, #24]
        ldp     x4, x5, [x19, #40]
        svc     #0
        ldp     x9, x10, [x19, #56]
        cbz     x9, next
        cmp     x0, x10
        b.ne    give_up
next:
        add     x19, x19, #ROW
        b       call

give_up:
        mov     x0, #2
        ldp     x1, x2, [x19, #72]
        mov     x8, #SYS_write
        svc     #0
        mov     x0, #125
        mov     x8, #SYS_exit_group
        svc     #0

enter:
        ldp     x9, x0, [x19, #8]
        mov     sp, x9
        ldr     x16, [x19, #24]
        mov     x1, xzr
        mov     x2, xzr
        mov     x3, xzr
        mov     x4, xzr
        mov     x5, xzr
        mov     x8, xzr
        mov     x9, xzr
        mov     x10, xzr
        mov     x19, xzr
        br      x16

# What a unikernel's process executes before the unikernel: a list of system calls, then a jump.
#
# The list stands at TABLE, one row of 88 octets per call:
#     0      number of the call; negative: the last row, see `enter`
#     8..48  its six arguments
#     56     1 if the result must equal the next word, else 0
#     64     the result that is expected
#     72 80  address and length of what to write to descriptor 2 if it is not, before ending with status 125
#
# No stack and no writable memory is used: both may be gone already. Assemble with `as --64`; the octets of .text
# stand in stub.py.

        .intel_syntax noprefix
        .set    TABLE, 0x21000
        .set    ROW, 88
        .set    SYS_write, 1
        .set    SYS_exit_group, 231

        .text
        .globl  _start
_start:
        mov     ebx, TABLE
call:
        mov     rax, [rbx]
        test    rax, rax
        js      enter
        mov     rdi, [rbx + 8]
        mov     rsi, [rbx + 16]
        mov     rdx, [rbx + 24]
        mov     r10, [rbx + 32]
        mov     r8, [rbx + 40]
        mov     r9, [rbx + 48]
        syscall
        cmp     qword ptr [rbx + 56], 0
        je      next
        cmp     rax, [rbx + 64]
        jne     give_up
next:
        add     rbx, ROW
        jmp     call

give_up:
        mov     edi, 2
        mov     rsi, [rbx + 72]
        mov     rdx, [rbx + 80]
        mov     eax, SYS_write
        syscall
        mov     edi, 125
        mov     eax, SYS_exit_group
        syscall

# Last row: stack pointer, boot information and entry of the unikernel. It finds nothing of ours in its registers.
enter:
        mov     rsp, [rbx + 8]
        mov     rdi, [rbx + 16]
        mov     rax, [rbx + 24]
        xor     ebx, ebx
        xor     ecx, ecx
        xor     edx, edx
        xor     esi, esi
        xor     ebp, ebp
        xor     r8d, r8d
        xor     r9d, r9d
        xor     r10d, r10d
        xor     r11d, r11d
        xor     r12d, r12d
        xor     r13d, r13d
        xor     r14d, r14d
        xor     r15d, r15d
        jmp     rax

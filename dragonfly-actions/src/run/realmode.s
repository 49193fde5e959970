# From the 64-bit mode in which a kernel leaves by kexec (paging on, everything mapped one to one,
# interrupts off; Linux, arch/x86/kernel/relocate_kernel_64.S) to the real mode that a boot loader
# hands over to a kernel's setup code (Linux, Documentation/arch/x86/boot.rst): Intel SDM volume 3A,
# 10.8.5.4 (leaving long mode) and 10.9.2 (leaving protected mode).
#
# It is copied to BASE and entered at its first byte. The setup code lies at SETUP << 4.

.set BASE, 0x7000
.set STACK, 0x7ff0
.set SETUP, 0x1000

.section .rodata.dragonfly_realmode, "a"
.globl dragonfly_realmode_start
.globl dragonfly_realmode_end

.code64
dragonfly_realmode_start:
    cli
    cld
    mov esp, STACK
    # lgdt [dragonfly_realmode_gdt_pointer]. Instructions with an address in BASE are written out:
    # assemblers differ in how they spell it.
    .byte 0x0f, 0x01, 0x14, 0x25
    .long BASE + (dragonfly_realmode_gdt_pointer - dragonfly_realmode_start)
    # Far return: the only way from 64-bit code into another code segment.
    push 0x08
    # push dragonfly_realmode_32
    .byte 0x68
    .long BASE + (dragonfly_realmode_32 - dragonfly_realmode_start)
    retfq

.code32
dragonfly_realmode_32:
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, STACK
    # Paging off ends long mode; the code runs where it is mapped one to one.
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    xor eax, eax
    mov cr3, eax
    # EFER.LME off, or paging would bring long mode back.
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    xor eax, eax
    mov cr4, eax
    # lidt [dragonfly_realmode_idt_pointer]
    .byte 0x0f, 0x01, 0x1d
    .long BASE + (dragonfly_realmode_idt_pointer - dragonfly_realmode_start)
    # ljmp 0x18:dragonfly_realmode_16
    .byte 0xea
    .long BASE + (dragonfly_realmode_16 - dragonfly_realmode_start)
    .word 0x18

.code16
dragonfly_realmode_16:
    # Limits of 64 KiB, as real mode expects them.
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    # ljmp 0:dragonfly_realmode_real
    .byte 0xea
    .word BASE + (dragonfly_realmode_real - dragonfly_realmode_start)
    .word 0

dragonfly_realmode_real:
    # The interrupt controllers as BIOS has them: vectors 08h and 70h, timer and cascade on.
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 0x08
    out 0x21, al
    mov al, 0x70
    out 0xa1, al
    mov al, 0x04
    out 0x21, al
    mov al, 0x02
    out 0xa1, al
    mov al, 0x01
    out 0x21, al
    out 0xa1, al
    mov al, 0xb8
    out 0x21, al
    mov al, 0x8f
    out 0xa1, al
    # The timer at 18.2 Hz: BIOS counts its time-outs by it.
    mov al, 0x34
    out 0x43, al
    xor al, al
    out 0x40, al
    out 0x40, al
    # Boot protocol: all segments at the setup code, the stack behind its heap, entry 0x200 bytes in.
    mov ax, SETUP
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov sp, 0xfff0
    # ljmp SETUP + 0x20:0
    .byte 0xea
    .word 0
    .word SETUP + 0x20

.balign 8
dragonfly_realmode_gdt:
    .quad 0
    # 0x08 and 0x10: 32-bit code and data, 4 GiB. 0x18 and 0x20: 16-bit code and data, 64 KiB.
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00009b000000ffff
    .quad 0x000093000000ffff
dragonfly_realmode_gdt_pointer:
    .word 39
    .quad BASE + (dragonfly_realmode_gdt - dragonfly_realmode_start)
dragonfly_realmode_idt_pointer:
    .word 0x3ff
    .long 0
dragonfly_realmode_end:

# Back to what the compiler expects.
.code64
.text

// Nothing counted here waits or is interrupted.

static inline mp_uint_t mp_hal_ticks_ms(void) {
    return 0;
}

static inline void mp_hal_set_interrupt_char(char character) {
    (void)character;
}

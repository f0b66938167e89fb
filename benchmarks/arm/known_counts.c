/* A program whose counts are known, to see that count_instructions.c counts them: twice as many turns of a loop must
 * give exactly as many more of every kind. Prints nothing; its marks are 0, 1 and 2. */

#include <sys/prctl.h>

#define MARK 0x65646765
#define TURNS 1000

/* A turn has 14 instructions: 2 of memory; 10 of vectors, among them 2 FMLA of float32, 1 of float16, 4 of dot products
 * and 3 of matrices; 2 of the loop. */
static void turns(long count)
{
    long room[2];
    __asm__ volatile("1:\n"
                     "str q0, [%1]\n"
                     "ldr q1, [%1]\n"
                     "fmla v2.4s, v3.4s, v4.4s\n"
                     "fmla v2.4s, v3.4s, v4.s[1]\n"
                     "fmla v2.8h, v3.8h, v4.8h\n"
                     "sdot v2.4s, v3.16b, v4.16b\n"
                     "udot v2.4s, v3.16b, v4.4b[2]\n"
                     "usdot v2.4s, v3.16b, v4.16b\n"
                     "sudot v2.4s, v3.16b, v4.4b[3]\n"
                     "smmla v2.4s, v3.16b, v4.16b\n"
                     "ummla v2.4s, v3.16b, v4.16b\n"
                     "usmmla v2.4s, v3.16b, v4.16b\n"
                     "subs %0, %0, #1\n"
                     "b.ne 1b\n"
                     : "+r"(count)
                     : "r"(room)
                     : "memory", "cc", "v0", "v1", "v2", "v3", "v4");
}

int main(void)
{
    prctl(MARK, 0, 0, 0, 0);
    turns(TURNS);
    prctl(MARK, 1, 0, 0, 0);
    turns(2 * TURNS);
    prctl(MARK, 2, 0, 0, 0);
    return 0;
}

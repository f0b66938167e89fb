package org.edgemllm.picture;

/** The resampling filters of Pillow's Resample.c (MIT-CMU), operation for operation. */
enum Filter {
    BOX(0.5) {
        @Override
        double at(double x) {
            return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
        }
    },
    BILINEAR(1.0) {
        @Override
        double at(double x) {
            double distance = Math.abs(x);
            return distance < 1.0 ? 1.0 - distance : 0.0;
        }
    },
    HAMMING(1.0) {
        @Override
        double at(double x) {
            double distance = Math.abs(x);
            if (distance == 0.0) {
                return 1.0;
            }
            if (distance >= 1.0) {
                return 0.0;
            }
            distance *= Math.PI;
            return StrictMath.sin(distance) / distance * (0.54f + 0.46f * StrictMath.cos(distance));
        }
    },
    BICUBIC(2.0) {
        @Override
        double at(double x) {
            double a = -0.5;
            double distance = Math.abs(x);
            if (distance < 1.0) {
                return ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1;
            }
            if (distance < 2.0) {
                return (((distance - 5) * distance + 8) * distance - 4) * a;
            }
            return 0.0;
        }
    },
    LANCZOS(3.0) {
        @Override
        double at(double x) {
            return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
        }
    };

    /** Half of the width over which it is not zero, at scale one. */
    final double support;

    Filter(double support) {
        this.support = support;
    }

    abstract double at(double x);

    private static double sinc(double x) {
        if (x == 0.0) {
            return 1.0;
        }
        x *= Math.PI;
        return StrictMath.sin(x) / x;
    }
}

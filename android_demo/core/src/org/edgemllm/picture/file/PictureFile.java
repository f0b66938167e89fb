package org.edgemllm.picture.file;

import org.edgemllm.errors.EdgeMllmException;
import org.edgemllm.errors.ImageException;
import org.edgemllm.picture.Rgb;

/**
 * From the bytes of a file to upright 8-bit RGB. PNG is decoded here, bit for bit as the Python runtime has it; for other
 * formats the system's decoder is asked, whose pixels may be slightly others.
 */
public final class PictureFile {
    /** Largest picture that is decoded; 600 MB as RGB. */
    public static final int MAX_PIXELS = 200000000;

    private final OtherFormats others;

    /** What decodes the formats that this library does not know. */
    public interface OtherFormats {
        /** As it lies in the file, not turned; null where the format is not known. See {@link Decoded#halves}. */
        Decoded decode(byte[] file) throws Exception;
    }

    /** {@code others} may be null: then only PNG is read. */
    public PictureFile(OtherFormats others) {
        this.others = others;
    }

    /**
     * Decode a picture.
     *
     * @param file its bytes
     * @param name what messages call it
     */
    public Rgb decode(byte[] file, String name) {
        return read(file, name).rgb;
    }

    /** The same, with what there is to say of it. */
    public Decoded read(byte[] file, String name) {
        if (file.length == 0) {
            throw new ImageException(name, "the file is empty");
        }
        try {
            if (PngFile.is(file)) {
                PngFile png = new PngFile(file);
                checkSize(png.width, png.height, name);
                return new Decoded(Orientation.upright(png.rgb(), png.orientation()), png.width, png.height, 1);
            }
            Decoded found = others == null ? null : others.decode(file);
            if (found == null) {
                throw new ImageException(name, "it is not a picture in a format that can be read here");
            }
            Rgb upright = Orientation.upright(found.rgb, Orientation.ofJpeg(file));
            return new Decoded(upright, found.fileWidth, found.fileHeight, found.by);
        } catch (EdgeMllmException error) {
            throw error;
        } catch (OutOfMemoryError error) {
            throw new ImageException(name, "there is not enough memory to decode it; use a smaller picture, or a JPEG, "
                + "which is decoded at a smaller size where it must be");
        } catch (Exception error) {
            throw new ImageException(name,
                "the picture is damaged or of a kind that cannot be read (" + ImageException.line(error) + ")");
        }
    }

    /** Refuse sizes that are not decoded. */
    public static void checkSize(long width, long height, String name) {
        if (width < 1 || height < 1) {
            throw new ImageException(name, "it has no pixels (" + width + "x" + height + ")");
        }
        if (width * height > MAX_PIXELS) {
            throw new ImageException(name, width + "x" + height + " is " + Math.round(width * height / 1e6)
                + " megapixels, the limit is " + MAX_PIXELS / 1000000);
        }
    }
}

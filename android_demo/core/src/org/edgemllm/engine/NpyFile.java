package org.edgemllm.engine;

import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.Charset;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import org.edgemllm.errors.BundleException;

/** Rows of floats of a NumPy file (NEP 1), mapped from storage: only rows that are read take memory. */
final class NpyFile {
    private static final Pattern HEADER = Pattern.compile(
        "\\{'descr': '<f([24])', 'fortran_order': False, 'shape': \\((\\d+),(?: (\\d+))?,?\\), \\} *\n?");
    private static final int MOST_HEADER = 1 << 16;
    private static final long PIECE = 1L << 30;

    /** Numbers of axes: rows and columns, or columns alone. */
    final long rows;
    final int columns;
    private final int itemSize;
    private final int rowsOfPiece;
    private final ByteBuffer[] pieces;

    NpyFile(File file) {
        try (RandomAccessFile opened = new RandomAccessFile(file, "r")) {
            byte[] start = new byte[10];
            opened.readFully(start);
            boolean second = start[6] == 2;
            int length = start[8] & 255 | (start[9] & 255) << 8;
            int begin = second ? 12 : 10;
            byte[] header = new byte[Math.min(length, MOST_HEADER)];
            opened.seek(begin);
            opened.readFully(header);
            Matcher found = HEADER.matcher(new String(header, Charset.forName("ISO-8859-1")));
            if (start[0] != (byte) 0x93 || start[1] != 'N' || !found.matches()) {
                throw new IOException("it is no table of floats");
            }
            itemSize = Integer.parseInt(found.group(1));
            boolean flat = found.group(3) == null;
            rows = flat ? 1 : Long.parseLong(found.group(2));
            columns = Integer.parseInt(flat ? found.group(2) : found.group(3));
            long line = (long) columns * itemSize;
            if (line == 0 || (opened.length() - begin - length) / line < rows) {
                throw new EOFException();
            }
            rowsOfPiece = (int) Math.max(1, Math.min(rows, PIECE / line));
            pieces = map(opened.getChannel(), begin + length, line);
        } catch (EOFException error) {
            throw new BundleException(file, "the numbers cannot be read (it is cut off)");
        } catch (IOException error) {
            throw new BundleException(file, "the numbers cannot be read (" + BundleException.line(error) + ")");
        } catch (NumberFormatException error) {
            throw new BundleException(file, "the numbers cannot be read (its shape is too large)");
        }
    }

    /** Bytes of the whole table. */
    long bytes() {
        return rows * columns * itemSize;
    }

    /** Copy one row. */
    void read(int row, float[] out, int at) {
        ByteBuffer piece = pieces[row / rowsOfPiece];
        int place = row % rowsOfPiece * columns * itemSize;
        for (int i = 0; i < columns; i++) {
            out[at + i] = itemSize == 4 ? piece.getFloat(place + 4 * i) : Half.toFloat(piece.getShort(place + 2 * i));
        }
    }

    private ByteBuffer[] map(FileChannel channel, long begin, long line) throws IOException {
        ByteBuffer[] found = new ByteBuffer[(int) ((rows + rowsOfPiece - 1) / rowsOfPiece)];
        for (int i = 0; i < found.length; i++) {
            long first = (long) i * rowsOfPiece;
            long count = Math.min(rowsOfPiece, rows - first);
            found[i] = channel.map(FileChannel.MapMode.READ_ONLY, begin + first * line, count * line)
                .order(ByteOrder.LITTLE_ENDIAN);
        }
        return found;
    }
}

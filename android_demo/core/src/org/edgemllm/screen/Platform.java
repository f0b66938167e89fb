package org.edgemllm.screen;

import org.edgemllm.measure.Machine;
import org.edgemllm.measure.SamplePicture;
import org.edgemllm.picture.file.PictureFile;

/** What another class does on every system: formats of pictures, and the machine's name. */
public interface Platform extends PictureFile.OtherFormats, SamplePicture.Jpeg {
    Machine machine();
}

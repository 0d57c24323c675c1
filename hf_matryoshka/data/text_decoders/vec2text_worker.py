"""What a [`Vec2TextDecoder`] runs in the Python of another environment: a script that imports nothing of this package.

Argument: the settings as JSON. Standard input: one line of JSON a request, the name of a `.npy` file of shape
`(n, dim)`. Standard output: `"imported"` and `"loaded"` when that has happened, then the texts, each one line of JSON.
"""

import json
import os
import sys
import traceback


def main(corrector: str | list[str], num_steps: int | None, beam_width: int, batch_size: int) -> None:
    # Libraries print what they like: only this file object writes to what was the standard output.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(message: str) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    import vec2text

    reply("imported")
    import numpy as np
    import torch

    if isinstance(corrector, str):
        loaded = vec2text.load_pretrained_corrector(corrector)
    else:
        inversion, correction = corrector
        loaded = vec2text.load_corrector(
            vec2text.models.InversionModel.from_pretrained(inversion),
            vec2text.models.CorrectorEncoderModel.from_pretrained(correction),
        )
    reply("loaded")
    for line in sys.stdin:
        embeddings = torch.from_numpy(np.load(json.loads(line), allow_pickle=False))
        for batch in embeddings.split(batch_size):
            with torch.no_grad():
                texts = vec2text.invert_embeddings(
                    embeddings=batch.to(loaded.model.device),
                    corrector=loaded,
                    num_steps=num_steps,
                    sequence_beam_width=beam_width,
                )
            if len(texts) != len(batch):
                raise ValueError(f"vec2text gave {len(texts)} texts for {len(batch)} embeddings")
            for text in texts:
                reply(text)


if __name__ == "__main__":
    # Python looks for modules beside a script first, where the files of this package lie.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    try:
        main(**json.loads(sys.argv[1]))
    except BaseException as error:
        traceback.print_exc()
        # The last line is what the other side tells: the whole message, and nothing that libraries log at the exit.
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        os._exit(1)

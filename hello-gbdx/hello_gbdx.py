"""hello-gbdx: write the names of the input files and a message to a text file.

| port     | type             | content                                                                   |
| -------- | ---------------- | ------------------------------------------------------------------------- |
| data_in  | directory input  | the files whose names are listed; hidden ones (.DS_Store) are left out    |
| message  | string input     | a line of text; optional, "No message!" when not given                    |
| data_out | directory output | out.txt: the sorted names, joined by commas; on the next line the message |

Run it on test_inputs/ with `make run TASK=hello-gbdx`.
"""

import os

from gbdx_task_interface import GbdxTaskInterface


def visible_names(port, folder):
    """The sorted names in a port's folder that do not begin with a dot. FileNotFoundError when there are none."""
    names = sorted(os.listdir(folder)) if folder else []
    visible = [name for name in names if not name.startswith(".")]
    if not visible:
        found = ", ".join(names) or "nothing"
        raise FileNotFoundError(f"input port {port!r}: expected a directory with at least one file, found: {found}")
    return visible


class HelloGbdxTask(GbdxTaskInterface):
    def invoke(self):
        names = visible_names("data_in", self.get_input_data_port("data_in"))
        message = self.get_input_string_port("message", default="No message!")

        output_folder = self.get_output_data_port("data_out")
        os.makedirs(output_folder, exist_ok=True)

        # surrogateescape writes the bytes of a file name that isn't UTF-8 as they are.
        with open(os.path.join(output_folder, "out.txt"), "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{','.join(names)}\n{message}")


if __name__ == "__main__":
    with HelloGbdxTask() as task:
        task.invoke()

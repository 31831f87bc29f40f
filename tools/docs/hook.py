"""MkDocs: hand it the filled-in pages and the pictures of the records."""

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from tools.docs import site


def on_files(files, config):
    """Pictures lie beside the records, not under `docs/`."""
    for place, path in site.pictures().items():
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """A page before it becomes HTML."""
    try:
        return site.fill(markdown, page.file.src_uri)
    except site.Missing as e:
        raise PluginError(str(e)) from e

"""One class per way to fail. Each message says what is wrong and what to do."""


class XlgptError(Exception):
    """Something a user can mend; the command line prints its sentence and exits with `exit_code`."""

    exit_code = 1


class UsageError(XlgptError):
    """An argument that no model could satisfy."""

    exit_code = 2


class ModelNotFound(XlgptError):
    """There is no such folder, no such name on the Hub, or no way to reach the Hub."""


class UnsupportedModel(XlgptError):
    """The configuration asks for arithmetic that the templates do not hold."""


class BadCheckpoint(XlgptError):
    """A tensor is missing, extra, of the wrong shape or type, or not finite; or a file is damaged."""


class BadVocabulary(XlgptError):
    """vocab.json and merges.txt are not there, do not belong together, or do not fit the model."""


class BadVectors(XlgptError):
    """A file of steering vectors that cannot be read, or whose vectors do not fit the model."""


class BadAutoencoder(XlgptError):
    """A sparse autoencoder that cannot be read, is of a kind that the templates do not hold, or of another model."""


class BadAdapter(XlgptError):
    """A LoRA adapter that cannot be read, is of a kind that the templates do not hold, or of another model."""


class BadSubject(UsageError):
    """What a prompt is said to be about does not stand in it."""


class NotOneToken(UsageError):
    """A target that the model's vocabulary has no single token for."""


class BadRelations(XlgptError):
    """A file of facts, by relation, that cannot be read, or that has something else in it."""


class PromptTooLong(UsageError):
    """The prompt has more tokens than the workbook has rows for."""


class ContextTooLong(UsageError):
    """More rows were asked for than the model has positions."""


class SheetTooSmall(XlgptError):
    """A matrix does not fit the 1,048,576 rows by 16,384 columns of a worksheet."""


class WorkbookTooLarge(XlgptError):
    """The file would pass 4 GiB, beyond which Excel does not read it."""


class TooLongForExcel(XlgptError):
    """A formula, or a list in a cell, would have more characters than Excel takes: the model has too many blocks."""


class OutputError(XlgptError):
    """The workbook cannot be written there."""


class WorkerEnded(XlgptError):
    """A process that was to do a part of the work was killed, by the system or by someone."""


class ClusterNotInstalled(XlgptError):
    """Dask, which brings work to a cluster, is not installed."""


class ClusterNotReached(XlgptError):
    """No scheduler answers at an address, it has no worker, or it was lost."""


class WorkerDiffers(XlgptError):
    """A worker of a cluster has another xlgpt, or none."""


class FileNotShared(XlgptError):
    """A worker of a cluster does not see a file, or sees another under its path."""


class TemplateError(XlgptError):
    """A template names something that is not there, or gives one cell to two things."""


class NotAWorkbook(XlgptError):
    """The file is not there, is neither .xlsx nor .xlsb, is locked by a password, or is damaged as a zip archive."""


class ForeignWorkbook(XlgptError):
    """A workbook, but none that xlgpt built."""


class BrokenWorkbook(XlgptError):
    """Built by xlgpt, and changed since so that a part of the model is gone: a sheet, a name, a cell."""


class FormulaError(XlgptError):
    """A formula that an engine cannot evaluate: a function or a name that it does not know, or a circle."""


class UnsupportedFormula(XlgptError):
    """A formula with no known form in .xlsb: a function, name, sheet, operator or token that xlgpt does not write."""


class EngineNotFound(XlgptError):
    """The program that is to calculate is not installed."""


class EngineFailed(XlgptError):
    """The program that is to calculate did not start in time, ended on its own, or would not do what it was asked."""


class TooManyCells(XlgptError):
    """The workbook has more cells than a page in a browser can hold."""


class PortTaken(UsageError):
    """Another program listens on the port that the page was to have."""

"""Text of items becomes features; the one place that the sentence-embedding library enters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from graphmoe.errors import ConfigError, MissingExtraError, unknown_name

#: Texts in, one row of numbers a text out.
TextEncoder: TypeAlias = Callable[[list[str]], np.ndarray]

#: Words a text column may become columns of.
MAX_WORDS = 1024

#: The model ``"sentence"`` stands for.
SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def encode_texts(
    texts: Sequence[str | None], encoder: str | TextEncoder = "sentence"
) -> np.ndarray:
    """Features ``[R, F]`` float32 of texts; a text that is missing or empty gives a row of NaN.

    Args:
        texts: One text an item.
        encoder: ``"sentence"`` or ``"sentence:MODEL"`` (sentence embeddings; needs the extra
            ``text``), ``"tfidf"`` (weighted words, see :func:`tfidf_words`; needs nothing), or a
            function of your own.

    Raises:
        ConfigError: There is no such encoder.
        MissingExtraError: The extra ``text`` is not installed.
    """
    known = np.array([bool(text and text.strip()) for text in texts], dtype=bool)
    given = [str(text) for text, there in zip(texts, known, strict=True) if there]
    if callable(encoder):
        rows = encoder(given)
    elif encoder == "tfidf":
        rows = tfidf_words(given)
    elif encoder.split(":", 1)[0] == "sentence":
        rows = _sentences(given, encoder.partition(":")[2] or SENTENCE_MODEL)
    else:
        raise ConfigError(unknown_name("text encoder", encoder, ("sentence", "tfidf")))
    rows = np.asarray(rows, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(given):
        got = list(rows.shape)
        raise ConfigError(f"the text encoder gave shape {got} for {len(given)} texts")
    features = np.full((len(texts), rows.shape[1]), np.nan, dtype=np.float32)
    features[known] = rows
    return features


def tfidf_words(texts: Sequence[str], max_words: int = MAX_WORDS) -> np.ndarray:
    """TF-IDF of the words that occur in at least two texts, the most frequent first to stay.

    A text without any such word gives a row of NaN: nothing is known of it. Statistics are over
    all the texts of the catalogue; interactions play no part.

    Args:
        texts: One text an item.
        max_words: Columns at most.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        min_df=2 if len(texts) > 1 else 1,
        max_features=max_words,
        stop_words="english",
        token_pattern=r"(?u)\b[^\W\d_]\w+\b",
    )
    try:
        rows = vectorizer.fit_transform(texts).toarray().astype(np.float32)
    except ValueError:  # no word is left
        return np.full((len(texts), 1), np.nan, dtype=np.float32)
    rows[~rows.any(axis=1)] = np.nan
    return np.asarray(rows)


def _sentences(texts: list[str], model: str) -> np.ndarray:
    try:
        from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]
    except (ImportError, OSError) as error:
        missing = MissingExtraError.for_extra("sentence-transformers", "text")
        raise MissingExtraError(f"{missing}, or choose text_encoder='tfidf'") from error
    rows = SentenceTransformer(model, device="cpu").encode(texts, show_progress_bar=False)
    return np.asarray(rows, dtype=np.float32)

"""Published weights: read without running code, fitted to another vocabulary, downloaded once."""

import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from warmstart.learner.files import FileError
from warmstart.text import AWD_LSTM, get_language_model
from warmstart.text.pretrained import load_pretrained, read_vocab, read_weights
from warmstart.text.vocab_match import match_rows

torch.set_num_threads(1)
SIZES = {"emb_sz": 6, "n_hid": 8, "n_layers": 2}
OLD = ["xxunk", "xxpad", "xxbos", "the", "film", "was", "good"]
NEW = ["xxunk", "xxpad", "xxbos", "good", "film", "zany"]


def published(vocab=OLD):
    """A state dict as fast.ai has published them, of a small model; and that model."""
    torch.manual_seed(0)
    model = get_language_model(AWD_LSTM, len(vocab), SIZES)
    torch.nn.init.normal_(model.decoder.linear.bias)
    own = model.state_dict()
    state = {f"{prefix}.weight": own["encoder.embedding.weight"] for prefix in ("0.encoder", "0.encoder_dp.emb")}
    for i in range(2):
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        state |= {f"0.rnns.{i}.module.{name}": own[f"encoder.rnns.{i}.{name}"] for name in names}
        state[f"0.rnns.{i}.weight_hh_l0_raw"] = own[f"encoder.rnns.{i}.weight_hh_l0"]
        state[f"0.rnns.{i}.module.weight_hh_l0"] = torch.zeros(4 * own[f"encoder.rnns.{i}.weight_hh_l0"].shape[1], 1)
    return state | {
        "1.decoder.weight": own["decoder.linear.weight"],
        "1.decoder.bias": own["decoder.linear.bias"],
    }, model


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "wt103-fwd"
    path.mkdir()
    torch.save({"model": published()[0], "opt": {}}, path / "lstm_fwd.pth", _use_new_zipfile_serialization=False)
    (path / "itos_wt103.pkl").write_bytes(pickle.dumps(OLD))
    return path


@pytest.fixture
def server(folder):
    """The address of an archive, and how often it was asked for."""
    with tarfile.open(folder.parent / "wt103-fwd.tgz", "w:gz") as archive:
        archive.add(folder, "wt103-fwd")
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder.parent)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/wt103-fwd.tgz", asked
        server.shutdown()


def test_words_that_are_known_get_their_weights_and_others_the_mean(folder):
    model, old = get_language_model(AWD_LSTM, len(NEW), SIZES), published()[1]
    load_pretrained(model, NEW, folder)
    rows, old_rows = model.encoder.embedding.weight, old.encoder.embedding.weight
    assert torch.equal(rows[[3, 4]], old_rows[[6, 4]])
    torch.testing.assert_close(rows[5], old_rows.mean(0))
    bias, old_bias = model.decoder.linear.bias, old.decoder.linear.bias
    assert torch.equal(bias[[3, 4]], old_bias[[6, 4]])
    torch.testing.assert_close(bias[5], old_bias.mean())
    assert model.decoder.linear.weight is rows


def test_the_model_says_what_the_published_one_says(folder):
    model, old = get_language_model(AWD_LSTM, len(OLD), SIZES), published()[1]
    load_pretrained(model, OLD, str(folder))
    x = torch.tensor([[2, 3, 4, 5]])
    torch.testing.assert_close(model.eval()(x), old.eval()(x))


def test_a_network_alone_takes_them_too(folder):
    encoder, old = AWD_LSTM(len(OLD), **SIZES), published()[1]
    load_pretrained(encoder, OLD, folder)
    x = torch.tensor([[2, 3, 4, 5]])
    torch.testing.assert_close(encoder.eval()(x)[0], old.encoder.eval()(x)[0])


def test_both_formats_of_torch_are_read(folder):
    old_format = read_weights(folder / "lstm_fwd.pth")
    torch.save(published()[0], folder / "new.pth")
    new_format = read_weights(folder / "new.pth")
    assert (
        old_format.keys()
        == new_format.keys()
        == {"embedding.weight", "decoder.bias"}
        | {
            f"rnns.{i}.{name}"
            for i in range(2)
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        }
    )
    assert all(torch.equal(old_format[name], new_format[name]) for name in old_format)


def test_an_archive_is_downloaded_once(server, home):
    url, asked = server
    for _ in range(2):
        model = get_language_model(AWD_LSTM, len(NEW), SIZES)
        load_pretrained(model, NEW, url)
    assert len(asked) == 1
    assert torch.equal(model.encoder.embedding.weight[3], published()[1].encoder.embedding.weight[6])
    assert (home / "models" / "wt103-fwd" / "itos_wt103.pkl").exists()


def test_without_a_network_the_error_says_what_to_do():
    with pytest.raises(ConnectionError, match="Pass pretrained=False to begin with random weights, or pretrained=<fol"):
        load_pretrained(get_language_model(AWD_LSTM, len(NEW), SIZES), NEW, "http://127.0.0.1:9/wt103-fwd.tgz")


class Evil:
    def __reduce__(self):
        return print, ("run!",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "it asks for builtins.print. Nothing in it was run"),
        (pickle.dumps([Evil()]), "it asks for builtins.print"),
        (pickle.dumps(["a", 1]), "holds no list of words"),
        (pickle.dumps({"a": 1}), "holds no list of words"),
        (b"no pickle", "is no pickled list of words"),
        (b"", "is no pickled list of words"),
        (pickle.dumps(OLD)[:-5], "is no pickled list of words"),
    ],
)
def test_a_vocabulary_is_a_list_of_words_and_nothing_is_run(tmp_path, capsys, content, message):
    file = tmp_path / "itos.pkl"
    file.write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_vocab(file)
    assert "run!" not in capsys.readouterr().out


def saved(content, new_format=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


OTHER = [saved(Evil()), saved(Evil(), False), saved({"a": Evil()}, False), b"nothing",
         saved({"fc.weight": torch.zeros(2)}), saved([1], False), saved({})[:100]]  # fmt: skip


@pytest.mark.parametrize("content", OTHER)
def test_weights_are_tensors_by_name_and_nothing_is_run(tmp_path, capsys, content):
    file = tmp_path / "lstm.pth"
    file.write_bytes(content)
    with pytest.raises(FileError, match=r"lstm\.pth"):
        read_weights(file)
    assert "run!" not in capsys.readouterr().out


def test_weights_and_words_that_do_not_fit_each_other_are_refused(folder):
    (folder / "itos_wt103.pkl").write_bytes(pickle.dumps(OLD[:-1]))
    with pytest.raises(FileError, match="weights of 7 words and a vocabulary of 6"):
        load_pretrained(get_language_model(AWD_LSTM, len(NEW), SIZES), NEW, folder)


def test_a_vocabulary_of_other_words_is_refused(folder):
    with pytest.raises(ValueError, match=r"know none of the 5 words of the data, such as .*'zug'"):
        load_pretrained(get_language_model(AWD_LSTM, 5, SIZES), [*OLD[:3], "der", "zug"], folder)


def test_other_sizes_are_refused(folder):
    with pytest.raises(ValueError, match=r"weights of another architecture.*encoder.rnns.0"):
        load_pretrained(get_language_model(AWD_LSTM, len(NEW), SIZES | {"n_hid": 9}), NEW, folder)


def test_a_folder_without_the_files_says_which(folder):
    (folder / "itos_wt103.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs one \.pkl file: it has none"):
        load_pretrained(get_language_model(AWD_LSTM, len(NEW), SIZES), NEW, folder)
    with pytest.raises(FileNotFoundError, match=r"needs one \.pth file"):
        load_pretrained(get_language_model(AWD_LSTM, len(NEW), SIZES), NEW, folder / "elsewhere")


@given(old=st.lists(st.text("abcde", min_size=1, max_size=2), min_size=1, unique=True),
       new=st.lists(st.text("abcde", min_size=1, max_size=2), min_size=1, unique=True))  # fmt: skip
def test_rows_follow_their_words(old, new):
    rows = torch.randn(len(old), 3)
    found = match_rows(rows, old, new)
    for word, row in zip(new, found, strict=True):
        torch.testing.assert_close(row, rows[old.index(word)] if word in old else rows.mean(0))

"""Adapters: weights of other libraries as named arrays, and back; exact in both directions.

Each module has `to_arrays(object)` and `from_arrays(arrays, ...)`, and imports its library only when called:
`torch_state_dict`, `sklearn_estimator`, `nested_lists` (FMA's JSON layouts), `array_list` (Keras' get_weights()). Those
of libraries whose models have more than trained parameters have `array_policies(model)`, for `set_initial_model`.
"""
